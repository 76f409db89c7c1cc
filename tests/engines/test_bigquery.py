"""BigQuery in and out, against an emulator process: what bigquery_emulator.py says it can't show is not shown here."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from pipelines.sandbox.server import RunningSandbox
from pipelines.summary import RunResult
from tests.conformance.jobs import plain_rows, run, write_csv, write_job
from tests.engines.bigquery_emulator import PROJECT, Front, emulator_python, serving_bigquery
from tests.unit.gcs_bucket import serving_bucket
from transforms.records.bigquery_settings import SinkSettings
from transforms.records.errors import ConfigError, InputError
from transforms.storage import bigquery_client, bigquery_stage
from transforms.storage.arrow_types import RUNS
from transforms.storage.bigquery_fill import open_tables

bigquery = pytest.importorskip(
    "google.cloud.bigquery", reason="the extra gcp is not installed: pip install 'rowbeam[gcp]'"
)

COST_BY_MODEL = """
SELECT response_model, COUNT(*) AS calls, SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens,
  SUM(cost_usd) AS cost_usd, COUNTIF(cost_usd IS NULL) AS calls_of_unknown_cost
FROM `{dataset}.reviews_calls`
WHERE run_date = DATE_SUB(CURRENT_DATE(), INTERVAL {days} DAY) AND call_type = 'LLM'
GROUP BY response_model ORDER BY cost_usd DESC
"""

_datasets = iter(range(1_000_000))


@pytest.fixture(scope="session")
def emulator(_closed_world: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """The emulator's process."""
    python = emulator_python()
    if python is None:
        pytest.skip("bqemulator is not fetched (python -m tests.engines.bigquery_emulator)")
    with serving_bigquery(python, tmp_path_factory.mktemp("bigquery") / "gcs") as front:
        yield front


@pytest.fixture
def front(emulator: Front, monkeypatch: pytest.MonkeyPatch) -> Front:
    """The emulator in order, and the library pointed at it."""
    emulator.reset()
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", emulator.url)
    monkeypatch.setattr(bigquery_client, "_RETRY_S", 2.0)
    monkeypatch.setattr(bigquery_client, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(bigquery_stage, "_UPLOAD_TRIES", 0)
    return emulator


@pytest.fixture(scope="session")
def bigquery_sandbox(_closed_world: None) -> Iterator[RunningSandbox]:
    """The provider."""
    with RunningSandbox(latency_s=0.0) as running:
        yield running


@pytest.fixture
def service(front: Front) -> Any:
    """A client of the emulator."""
    return bigquery_client.client(PROJECT, None)


@pytest.fixture
def dataset(service: Any) -> str:
    """An empty dataset."""
    name = f"{PROJECT}.ds{next(_datasets)}"
    service.create_dataset(name)
    return name


@pytest.fixture
def make_job(
    workdir: Path, bigquery_sandbox: RunningSandbox, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Write a job over some rows that goes to the dataset."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sandbox-key-0123456789")
    bigquery_sandbox.reset()

    def make(rows: list[dict[str, str]], method: str = "file_loads", **changes: Any) -> Path:
        write_csv(workdir / "reviews.csv", rows)
        place = {"dataset": dataset, "prefix": "reviews_", "method": method}
        sinks = {"enriched": "bigquery", "audit": "bigquery", "bigquery": place}
        return write_job(workdir, bigquery_sandbox.base_url("openai"), sinks=sinks, **changes)

    return make


@pytest.fixture
def ask(service: Any, dataset: str) -> Callable[[str], list[dict[str, Any]]]:
    """Ask BigQuery; {} stands for the tables' prefix."""
    return lambda sql: [dict(row) for row in service.query(sql.format(f"{dataset}.reviews_")).result()]


def _sent(result: RunResult) -> int:
    sent: int = result.summary["calls"]["sent"]
    return sent


TABLES = ("enriched", "dead_letters", "runs", "calls", "batches", "batch_members", "rows")


@pytest.mark.parametrize("method", ["file_loads", "streaming_inserts"])
def test_a_run_fills_all_tables_and_a_rerun_doubles_no_row(make_job, ask, service, dataset, front, method):
    """Enriched rows are replaced by id, audit rows are those of two runs; partitions, clustering and types are as said."""
    rows = [*plain_rows(12), {"id": "", "text": "no key"}]
    job = make_job(rows, method)
    first = run(job)
    assert (first.exit_code, first.sentence) == (0, "")
    filled = first.summary["bigquery"]
    assert (filled["error"], filled["refused"], filled["runs"]) == (None, {}, 1)
    counts = {table: len(ask("SELECT 1 FROM `{}" + table + "`")) for table in TABLES}  # noqa: S608
    assert counts == {table: filled["rows"][f"{dataset}.reviews_{table}"] for table in TABLES}
    assert (counts["enriched"], counts["dead_letters"], counts["rows"], counts["runs"]) == (12, 1, 13, 1)
    before = ask("SELECT id, sentiment.label, sentiment_row_id FROM `{}enriched` ORDER BY id")
    assert [row["sentiment_row_id"] for row in before] == sorted(row["id"] for row in before)

    second = run(job)
    assert (_sent(second), second.exit_code) == (0, 0)
    assert ask("SELECT id, sentiment.label, sentiment_row_id FROM `{}enriched` ORDER BY id") == before
    runs = ask("SELECT run_id, calls_sent FROM `{}runs` ORDER BY run_id")
    assert [row["calls_sent"] for row in runs] == [_sent(first), 0]
    assert ask("SELECT DISTINCT sentiment_run_id AS r FROM `{}enriched`") == [{"r": runs[1]["run_id"]}]
    assert ask("SELECT COUNT(*) AS n FROM `{}calls`") == [{"n": counts["calls"]}]

    table = service.get_table(f"{dataset}.reviews_enriched")
    assert (table.time_partitioning.field, table.clustering_fields) == ("sentiment_run_date", ["sentiment_row_id"])
    calls = service.get_table(f"{dataset}.reviews_calls")
    assert (calls.time_partitioning.field, calls.clustering_fields) == ("run_date", ["request_id"])
    types = {column.name: column.field_type for column in calls.schema}
    assert (types["cost_usd"], types["request_json"], types["started_at"]) == ("BIGNUMERIC", "STRING", "TIMESTAMP")
    left = [one.table_id for one in service.list_tables(dataset) if "staging" in one.table_id]
    assert left == []


def test_yesterdays_rows_of_other_inputs_stay(make_job, ask):
    """A second input's rows come beside the first's, and those with the same id replace them."""
    run(make_job(plain_rows(5)))
    run(make_job(plain_rows(5, start=3)))
    found = ask("SELECT sentiment_row_id AS r, COUNT(*) AS n FROM `{}enriched` GROUP BY r ORDER BY r")
    assert found == [{"r": f"r{number}", "n": 1} for number in range(8)]


def test_what_yesterday_cost_per_model(make_job, ask, service, dataset):
    """The README's query gives the calls, tokens and dollars that the run's summary has."""
    result = run(make_job(plain_rows(6)))
    (today,) = service.query(COST_BY_MODEL.format(dataset=dataset, days=0)).result()
    assert today["response_model"] == "gpt-4o-mini-2024-07-18"
    assert (today["calls"], today["input_tokens"]) == (_sent(result), result.summary["tokens"]["input"])
    assert today["cost_usd"] == Decimal(str(result.summary["cost_usd"])) > 0
    assert today["calls_of_unknown_cost"] == 0
    assert list(service.query(COST_BY_MODEL.format(dataset=dataset, days=1)).result()) == []


@pytest.mark.parametrize("lost", ["load", "query"])
def test_a_reply_that_is_lost_loads_nothing_twice(make_job, ask, front, lost):
    """The job of the same id is found, and no other is begun for it."""
    front.lost = [lost]
    result = run(make_job(plain_rows(4)))
    assert result.exit_code == 0
    assert front.lost == []
    assert ask("SELECT COUNT(*) AS n FROM `{}enriched`") == [{"n": 4}]
    publishing = [script for script in front.scripts if "BEGIN TRANSACTION" in script]
    assert len(publishing) == 1
    assert ask("SELECT COUNT(*) AS n FROM `{}rows`") == [{"n": 4}]


def test_a_run_that_bigquery_misses_is_copied_by_the_next(make_job, ask, front, workdir):
    """The run is done, says so and ends with 3; running the job again sends nothing and copies both runs."""
    job = make_job(plain_rows(4))
    run(job)
    front.down = ["/upload/"]
    result = run(make_job(plain_rows(6)))
    front.down = []
    assert (result.exit_code, result.summary["status"]) == (3, "done")
    assert "not copied to BigQuery" in result.sentence
    assert ask("SELECT COUNT(*) AS n FROM `{}runs`") == [{"n": 1}]
    again = run(job)
    assert (_sent(again), again.exit_code, again.summary["bigquery"]["runs"]) == (0, 0, 2)
    assert ask("SELECT COUNT(*) AS n FROM `{}runs`") == [{"n": 3}]
    assert ask("SELECT COUNT(*) AS n FROM `{}enriched`") == [{"n": 6}]


def test_a_receipt_lost_in_a_crash_publishes_nothing_again(make_job, front, workdir):
    """Without its receipt a run is looked up by its job's id, and nothing is loaded."""
    job = make_job(plain_rows(3))
    run(job)
    (receipt,) = workdir.glob("out/runs/*/bigquery.json")
    kept = orjson.loads(receipt.read_bytes())
    receipt.unlink()
    loads = front.counts["load"]
    result = run(job)
    assert result.summary["bigquery"]["runs"] == 2
    assert orjson.loads(receipt.read_bytes()) == kept
    assert sum("BEGIN TRANSACTION" in script for script in front.scripts) == 2
    assert front.counts["load"] - loads == loads - 3  # the second run has no calls, batches and members


@pytest.mark.parametrize("method", ["file_loads", "streaming_inserts"])
def test_refused_rows_are_told_kept_and_in_the_dead_letters(make_job, ask, front, workdir, method):
    """Two rows that BigQuery refuses cost no other row its place; the run ends with 1 and says where they are."""
    front.poison = {"Review number 3: it works.", "Review number 8: it works."}
    result = run(make_job(plain_rows(10), method))
    assert result.exit_code == 1
    assert "BigQuery refused 2 rows" in result.sentence
    assert ask("SELECT COUNT(*) AS n FROM `{}enriched`") == [{"n": 8}]
    letters = ask("SELECT row_id, stage, kind, reason, retryable, row FROM `{}dead_letters` ORDER BY row_id")
    assert [(row["row_id"], row["stage"], row["kind"], row["retryable"]) for row in letters] == [
        ("r3", "bigquery", "refused", False),
        ("r8", "bigquery", "refused", False),
    ]
    assert "poisoned" in letters[0]["reason"]
    assert orjson.loads(letters[0]["row"])["id"] == "r3"
    (file,) = workdir.glob("out/runs/*/bigquery/refused-reviews_enriched.jsonl")
    kept = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert sorted(line["row"]["id"] for line in kept) == ["r3", "r8"]


def test_a_type_that_conflicts_is_refused_before_anything_is_spent(make_job, service, dataset, bigquery_sandbox):
    """One line names the table, the column and both types."""
    service.create_table(bigquery.Table(f"{dataset}.reviews_calls", [bigquery.SchemaField("attempt", "STRING")]))
    with pytest.raises(
        ConfigError, match=r"reviews_calls has the column attempt as STRING, and this job writes INTEGER"
    ):
        run(make_job(plain_rows(2)))
    assert bigquery_sandbox.bill()["accepted"] == 0


def test_a_table_that_lacks_columns_gets_them(service, dataset):
    """Columns of its own stay, and come first; the emulator's table has them on paper only, so nothing is written here."""
    fields = [bigquery.SchemaField("run_id", "STRING"), bigquery.SchemaField("cost_center", "STRING")]
    service.create_table(bigquery.Table(f"{dataset}.reviews_runs", fields))
    place = {"dataset": dataset, "prefix": "reviews_"}
    open_tables(SinkSettings(audit="bigquery", bigquery=place), pa.schema([]), "sentiment")
    names = [column.name for column in service.get_table(f"{dataset}.reviews_runs").schema]
    assert names[:4] == ["run_id", "cost_center", "run_date", "job_name"]
    assert len(names) == len(RUNS) + 2


def test_a_dataset_that_is_not_there_is_one_line(make_job, service, dataset):
    """It says how to make it."""
    service.delete_dataset(dataset)
    with pytest.raises(ConfigError, match=r"there is no dataset .*bq mk"):
        run(make_job(plain_rows(2)))


def test_an_output_in_a_bucket_is_loaded_from_there(make_job, ask, front, monkeypatch):
    """Load jobs name the objects; nothing but the dead letters is uploaded."""
    with serving_bucket() as (held, url):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        front.objects = lambda uri: held.data(uri.removeprefix("gs://bucket/"))
        result = run(make_job(plain_rows(5), output="gs://bucket/out"))
    assert result.exit_code == 0, result.sentence
    assert ask("SELECT COUNT(*) AS n FROM `{}enriched`") == [{"n": 5}]
    assert ask("SELECT COUNT(*) AS n FROM `{}rows`") == [{"n": 5}]
    loads = [job["configuration"]["load"] for job in front.jobs.values() if "load" in job["configuration"]]
    assert all(load["sourceUris"][0].startswith("gs://bucket/out/runs/") for load in loads)


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(service: Any, dataset: str) -> str:
    """A table of reviews with a column of every type."""
    service.query(
        """
        CREATE TABLE `DS.source` AS
        SELECT FORMAT('r%d', n) AS id, FORMAT('Review number %d: it works.', n) AS text, n AS number, 1.5 AS rating,
          DATE '2026-11-20' AS day, TIMESTAMP '2026-11-20 01:02:03+00' AS moment, n = 1 AS first,
          NUMERIC '1.25' AS price, JSON '{"a": [1, 2]}' AS facts, b'ab' AS raw, [1, n] AS many, STRUCT(n AS x) AS one
        FROM UNNEST(GENERATE_ARRAY(0, 6)) AS n
        """.replace("DS", dataset)
    ).result()
    return f"{dataset}.source"


@pytest.mark.parametrize("form", ["table", "query"])
def test_rows_come_from_a_table_or_a_query(make_job, ask, table, form, monkeypatch):
    """All rows come, in ranges that several workers read, typed; the audit names the table or the query, and the row."""
    for module in ("bigquery_input", "inputs"):
        monkeypatch.setattr(f"transforms.storage.{module}.UNIT_ROWS", 3)
    source = table if form == "table" else f"SELECT * FROM `{table}` WHERE number < 5"  # noqa: S608
    many = 7 if form == "table" else 5
    result = run(make_job(plain_rows(1), input={"path": None, "bigquery": {form: source}}))
    assert result.exit_code == 0, result.sentence
    assert result.summary["rows"]["in"] == many
    rows = ask("SELECT * FROM `{}enriched` ORDER BY id")
    assert [row["id"] for row in rows] == [f"r{number}" for number in range(many)]
    row = rows[1]
    assert (row["number"], row["first"], row["facts"], row["raw"]) == (1, True, '{"a":[1,2]}', b"ab")
    assert (row["price"], row["many"], row["one"]["x"]) == (Decimal("1.25"), [1, 1], 1)
    places = ask("SELECT source FROM `{}rows`")
    assert {place["source"].rpartition(":")[0] for place in places} == {
        f"bigquery:{table}" if form == "table" else f"bigquery:query-{_short(source)}"
    }
    assert sorted(int(place["source"].rpartition(":")[2]) for place in places) == list(range(1, many + 1))


def _short(query: str) -> str:
    import hashlib

    return hashlib.sha256(query.encode()).hexdigest()[:12]


def test_enriched_rows_can_be_the_input_of_another_job(make_job, ask, dataset):
    """The columns of the first answer are columns of the input, and none is in the way."""
    run(make_job(plain_rows(3)))
    source = {"path": None, "bigquery": {"table": f"{dataset}.reviews_enriched"}}
    place = {"dataset": dataset, "prefix": "second_"}
    job = make_job(plain_rows(3), input=source, answer={"field": "mood"}, output="out2")
    text = job.read_text(encoding="utf-8").replace("prefix: reviews_", "prefix: second_")
    job.write_text(text, encoding="utf-8")
    assert place["prefix"] in text
    assert run(job).exit_code == 0
    found = ask("SELECT sentiment_row_id, mood_row_id FROM `DS.second_enriched` ORDER BY id".replace("DS", dataset))
    assert found == [{"sentiment_row_id": f"r{n}", "mood_row_id": f"r{n}"} for n in range(3)]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param({"table": "local.nowhere.t"}, "there is no table local.nowhere.t", id="no table"),
        pytest.param({"query": "SELECT nothing FROM nowhere"}, "input.bigquery: ", id="bad query"),
    ],
)
def test_an_input_that_is_not_there_is_one_line(make_job, source, words):
    """It is said before anything is spent."""
    with pytest.raises(InputError, match=words):
        run(make_job(plain_rows(1), input={"path": None, "bigquery": source}))
