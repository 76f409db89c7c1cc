"""CloseRun, the end of the path, through the runner."""

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.tally import CloseRun, tally_failure, tally_pending, tally_reused
from tests.stages.ends import make_pending, make_result
from tests.stages.harness import run_stage
from tests.unit.storage_builders import RUN, make_call, make_ended, make_opened
from transforms.records.failure import DeadLetter, FailureKind, Stage
from transforms.records.row import Outcome, RowOutcome
from transforms.storage.audit_rows import call_row, row_row
from transforms.storage.parts import new_part
from transforms.storage.runs import RunFolder
from transforms.storage.segment_writer import SegmentWriter
from transforms.storage.tables import AUDIT_SCHEMAS

COUNTS = {"in": 3, "enriched": 1, "dead_lettered": 1, "pending": 1, "broken": 0, "broken_ids": []}


@pytest.fixture
def job(tmp_path):
    """Return what closing needs of a prepared job."""
    schema = pa.schema([("id", pa.int64())])
    return SimpleNamespace(
        run=RunFolder(str(tmp_path), RUN),
        ledger=str(tmp_path / "ledger"),
        enriched_schema=schema,
        enriched_format="parquet",
    )


def part(job, table, *rows):
    """Write rows as a bundle does; return the (folder, path) that it hands on."""
    folder = job.run.enriched if table == "enriched" else job.run.table(table)
    path, writer = new_part(folder, job.enriched_schema if table == "enriched" else AUDIT_SCHEMAS[table])
    for row in rows:
        writer.append(row)
    writer.close()
    return folder, path


def close(job, *tallies, parts=()):
    """Run the stage; return the totals it left."""

    def build(root):
        tallied = [root | f"Tally{n}" >> beam.Create(tally) for n, tally in enumerate(tallies)]
        return root | beam.Create([COUNTS]) | CloseRun(job, tallied, [root | "Parts" >> beam.Create(list(parts))])

    run_stage(build)
    with open(job.run.totals, "rb") as file:  # noqa: PTH123 - a path as text
        return orjson.loads(file.read())


def test_the_totals_hold_counts_sums_and_tallies(tmp_path, job):
    """The sums come from the ledger; failures, pending requests and reused answers are counted by what they were."""
    with SegmentWriter(str(tmp_path / "ledger" / "answers"), RUN) as segment:
        for record in (make_opened(1), make_call(0), make_ended(succeeded=1)):
            segment.append(record)
    letter = DeadLetter("a", Stage.CALL, FailureKind.TIMEOUT, "no reply", 3, True, "a.csv", 2, {})
    totals = close(
        job,
        [tally_failure(letter), tally_failure(letter)],
        [tally_pending(make_pending("p"))],
        [tally_reused(make_result("r"))] * 3,
    )
    assert totals["rows"] == COUNTS
    assert (totals["calls"]["sent"], Decimal(totals["calls"]["cost_usd"])) == (1, Decimal("0.0000345"))
    assert totals["dead_letters"] == [{"stage": "call", "kind": "timeout", "rows": 2}]
    assert totals["pending"] == [{"kind": "quota_exhausted", "reason": "no money", "requests": 1}]
    assert totals["reused"] == 3
    calls = pq.read_table(job.run.table("calls")).to_pylist()
    assert [call["call_id"] for call in calls] == ["b1-000000"]


def write_ledger(tmp_path, *records):
    """Write a segment of the run."""
    with SegmentWriter(str(tmp_path / "ledger" / "answers"), RUN) as segment:
        for record in records:
            segment.append(record)


def test_the_parts_that_bundles_wrote_become_the_files(tmp_path, job):
    """Parts of each folder are named, sums come from the calls in them, and what nobody named goes."""
    write_ledger(tmp_path, make_opened(2), make_call(0), make_call(1, cost_usd=None), make_ended(succeeded=2))
    outcome = RowOutcome("id-1", "reviews.csv", 7, Outcome.ENRICHED, "r-0", "b1-000000", RUN)
    parts = [
        part(job, "enriched", {"id": 1}, {"id": 2}),
        part(job, "enriched", {"id": 3}),
        part(job, "rows", row_row(outcome, RUN)),
        part(job, "calls", call_row(make_call(0))),
        part(job, "calls", call_row(make_call(1, cost_usd=None))),
    ]
    for table in ("enriched", "calls"):
        part(job, table)
    totals = close(job, [], parts=parts)
    assert sorted(pq.read_table(job.run.enriched)["id"].to_pylist()) == [1, 2, 3]
    assert pq.read_table(job.run.table("rows"))["row_id"].to_pylist() == ["id-1"]
    assert files(job.run.table("calls")) == ["part-00000.parquet", "part-00001.parquet"]
    assert pq.read_table(job.run.table("batch_members"))["request_id"].to_pylist() == ["r-0", "r-1"]
    assert pq.read_table(job.run.table("batches"))["status"].to_pylist() == ["completed"]
    assert (totals["calls"]["sent"], Decimal(totals["calls"]["cost_usd"])) == (2, Decimal("0.0000345"))
    again = close(job, [], parts=parts)  # finds the parts named already, and takes the ledger's calls
    for one in (totals, again):
        one["calls"]["cost_usd"] = Decimal(one["calls"]["cost_usd"])
    assert again == totals
    assert files(job.run.table("calls")) == ["sealed.parquet"]
    assert files(job.run.enriched) == ["part-00000.parquet", "part-00001.parquet"]


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([make_call(0), make_call(1), make_ended()], id="a bundle was thrown away"),
        pytest.param([make_call(0)], id="a worker died"),
    ],
)
def test_parts_that_do_not_hold_the_ledgers_calls_are_not_taken(tmp_path, job, records):
    """Then calls, batches and members are made from the ledger, each once."""
    write_ledger(tmp_path, make_opened(2), *records)
    totals = close(job, [], parts=[part(job, "calls", call_row(make_call(0)))])
    paid = [record.call_id for record in records if hasattr(record, "call_id")]
    assert totals["calls"]["sent"] == len(paid)
    assert pq.read_table(job.run.table("calls"))["call_id"].to_pylist() == paid
    for table, rows in (("calls", len(paid)), ("batches", 1), ("batch_members", 2)):
        assert files(job.run.table(table)) == ["sealed.parquet"]
        assert pq.read_table(job.run.table(table)).num_rows == rows


def files(folder):
    """Return the names of what is in a folder, sorted; hidden files too."""
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_run_without_anything_has_totals_and_empty_tables(job):
    """Whoever reads the enriched rows finds a file with the columns."""
    totals = close(job, [])
    assert (totals["calls"]["sent"], totals["pending"], totals["dead_letters"], totals["reused"]) == (0, [], [], 0)
    assert pq.read_table(job.run.enriched).schema.names == ["id"]
    assert pq.read_table(job.run.table("rows")).num_rows == 0
