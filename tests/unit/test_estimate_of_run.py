"""What a run expects of its calls (pipelines/estimate_run.py), on what, and how that compares with what came."""

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.estimate_run import compare, expect
from pipelines.estimate_text import estimate_line
from pipelines.job import load_job
from pipelines.plan import make_plan
from pipelines.prepare import PreparedJob, prepare
from pipelines.row_sample import sample_rows
from tests.unit.cli_outputs import RUN_1, RUN_2, START, make_call
from transforms.records.row import RawRow
from transforms.rules.run_totals import CallTotals
from transforms.rules.tokens import estimate_tokens, prompt_tokens
from transforms.storage.arrow_types import AUDIT_SCHEMAS
from transforms.storage.audit_rows import call_row
from transforms.storage.inputs import read_rows
from transforms.storage.runs import RunFolder, start_run
from transforms.storage.tables import ParquetWriter

#: Whatever day it is, these models are served.
SERVED = {"deprecated": None, "retired": None, "successor": None}
PARAMS = {"max_output_tokens": 64}
MODEL: dict[str, Any] = {"provider": "openai", "name": "gpt-4.1-mini", "params": PARAMS, "entry": SERVED}
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}, "required": ["label"]}


def prepared_job(folder: Path, rows: int = 60, model: dict[str, Any] | None = None, **changes: Any) -> PreparedJob:
    """Write a job of so many distinct questions, and prepare it."""
    job = {
        "name": "reviews",
        "input": {"path": "rows.csv", "key": ["id"]},
        "output": "out",
        "prompt": {"template": "Rate: {{ row.text }}"},
        "answer": {"field": "label", "schema": SCHEMA},
        "model": MODEL | (model or {}),
    } | changes
    lines = "".join(f"{n},text number {n} of the file\n" for n in range(rows))
    (folder / "rows.csv").write_text(f"id,text\n{lines}", encoding="utf-8")
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return prepare(load_job(str(folder / "job.yaml")), "now")


def ruled(job: PreparedJob) -> dict[str, int]:
    """Return each request's input tokens by the character rule."""
    found = {}
    for row in read_rows(job.files[0], job.input, job.input_schema):
        assert isinstance(row, RawRow)
        prompt = job.template.render(row.values).prompt
        schema = estimate_tokens(
            '{"type":"object","properties":{"label":{"enum":["good","bad"]}},"required":["label"]}'
        )
        found[job.identity.request_id(prompt)] = prompt_tokens(prompt) + schema
    return found


def write_calls(job: PreparedJob, tokens: dict[str, int], run_id: str = RUN_1, output_tokens: int = 11) -> None:
    """Write an earlier run of this job: its manifest and the audit of its calls."""
    folder = RunFolder(job.job.output, run_id)
    dumped = job.job.model_dump(mode="json", by_alias=True)
    start_run(folder, job=dumped, job_sha256="d" * 64, runner="FnApiRunner", started_at=START)
    with ParquetWriter(f"{folder.table('calls')}/calls.parquet", AUDIT_SCHEMAS["calls"]) as table:
        for number, (request_id, count) in enumerate(tokens.items()):
            call = make_call(
                number, "q", run_id, request_id=request_id, root_request_id=request_id, input_tokens=count,
                output_tokens=output_tokens, template_sha256=job.template.template_sha256,
            )  # fmt: skip
            table.append(call_row(call))


def test_without_earlier_calls_the_rule_and_its_general_error_are_said(tmp_path: Path) -> None:
    """The character rule's mean, give or take 35 %; answers by the schema."""
    job = prepared_job(tmp_path)
    found, counts = expect(job), ruled(job)
    assert found["method"] == "characters"
    assert found["error"] == "+-35 % on a general rule"
    assert found["input_tokens_per_request"] == pytest.approx(sum(counts.values()) / 60, abs=0.05)
    assert found["output_tokens_per_request"] == {
        "low": 8.0, "expected": 8.0, "high": 64, "method": "typical JSON of the schema",
    }  # fmt: skip
    assert (found["requests_sampled"], found["processing"]) == (60, "real_time")


def test_dollars_are_worked_from_the_tokens(tmp_path: Path) -> None:
    """0.40 in and 1.60 out per million tokens: input x 0.40 + 8 x 1.60, its bounds by the error and the limit."""
    found = expect(prepared_job(tmp_path))
    mean, usd = Decimal(str(found["input_tokens_per_request"])), found["usd_per_request"]
    assert Decimal(usd["expected"]) == pytest.approx(
        (mean * Decimal("0.4") + 8 * Decimal("1.6")) / 1_000_000, rel=Decimal("0.01")
    )
    assert Decimal(usd["high"]) == pytest.approx(
        (mean * Decimal("1.35") * Decimal("0.4") + 64 * Decimal("1.6")) / 1_000_000, rel=Decimal("0.01")
    )
    assert Decimal(usd["low"]) < Decimal(usd["expected"]) < Decimal(usd["high"])
    assert usd["unknown"] is None


def test_earlier_calls_of_the_same_requests_calibrate_the_estimate(tmp_path: Path) -> None:
    """Where the model counted 1.5 times what the rule says, so does the estimate; answers take the mean of theirs."""
    job = prepared_job(tmp_path)
    write_calls(job, {request: round(1.5 * count) for request, count in ruled(job).items()})
    found = expect(job)
    assert found["method"] == f"calibrated on 60 calls of run {RUN_1}"
    assert found["error"].endswith("on this job's own calls")
    assert found["input_tokens_per_request"] == pytest.approx(1.5 * sum(ruled(job).values()) / 60, rel=0.02)
    assert found["output_tokens_per_request"]["expected"] == 11.0
    assert found["output_tokens_per_request"]["method"] == f"mean of 60 earlier calls (run {RUN_1})"


def test_the_newest_run_counts(tmp_path: Path) -> None:
    """Of two calls of a request the later run's is the one believed."""
    job = prepared_job(tmp_path)
    write_calls(job, ruled(job), RUN_1)
    write_calls(job, {request: 2 * count for request, count in ruled(job).items()}, RUN_2)
    assert expect(job)["method"] == f"calibrated on 60 calls of run {RUN_2}"
    assert expect(job)["input_tokens_per_request"] == pytest.approx(2 * sum(ruled(job).values()) / 60, rel=0.02)


@pytest.mark.parametrize(
    ("known", "model"),
    [
        pytest.param(19, {}, id="too-few-calls"),
        pytest.param(60, {"name": "gpt-4.1"}, id="another-model"),
        pytest.param(60, {"base_url": "http://127.0.0.1:9/v1"}, id="another-address"),
    ],
)
def test_calls_that_say_nothing_of_this_job_are_left_out(tmp_path: Path, known: int, model: dict[str, Any]) -> None:
    """Fewer than twenty, or a rehearsal's: the general rule stands."""
    earlier = prepared_job(tmp_path)
    write_calls(earlier, dict(list(ruled(earlier).items())[:known]))
    assert expect(prepared_job(tmp_path, model=model))["method"] == "characters"


def test_the_plan_is_calibrated_too(tmp_path: Path) -> None:
    """The same calls, the same factor, over all requests; and the range narrows to their error."""
    job = prepared_job(tmp_path)
    before = make_plan(job)
    write_calls(job, {request: 2 * count for request, count in ruled(job).items()})
    after = make_plan(job)
    assert after["tokens"]["input"] == 2 * before["tokens"]["input"]
    assert after["tokens"]["output_expected"] == 60 * 11
    assert after["tokens"]["input_high"] - after["tokens"]["input_low"] < 0.02 * after["tokens"]["input"]


def test_a_model_that_thinks_is_taken_to_think(tmp_path: Path) -> None:
    """Its reasoning is paid for as output: 200 tokens at low effort, said as an assumption."""
    params = {"params": {"max_output_tokens": 900, "reasoning_effort": "low"}}
    output = expect(prepared_job(tmp_path, model={"name": "gpt-5-mini"} | params))["output_tokens_per_request"]
    assert output["expected"] > 200
    assert "200 tokens of reasoning assumed" in output["method"]


def test_a_model_without_a_price_is_unknown_with_the_reason(tmp_path: Path) -> None:
    """Null in every place of money, never 0."""
    found = expect(prepared_job(tmp_path, model={"name": "gpt-nobody", "allow_unlisted": True, "entry": None}))
    usd = found["usd_per_request"]
    assert (usd["low"], usd["expected"], usd["high"]) == (None, None, None)
    assert usd["unknown"] == "the price table has no model gpt-nobody of openai"


def test_an_input_without_rows_is_no_estimate(tmp_path: Path) -> None:
    """Nothing is sampled, nothing is expected."""
    found = expect(prepared_job(tmp_path, rows=0))
    assert found["requests_sampled"] == 0
    assert found["input_tokens_per_request"] is None
    assert found["usd_per_request"]["unknown"] == "no row could be sampled"


def test_a_sample_reaches_into_a_large_file(tmp_path: Path) -> None:
    """Rows of the last quarter are in it, and all are rows of the file."""
    job = prepared_job(tmp_path, rows=30_000)
    rows = sample_rows(job, 400)
    assert len(rows) == 400
    assert max(int(str(row.values["id"])) for row in rows) > 20_000
    assert all(row.values["text"] == f"text number {row.values['id']} of the file" for row in rows)


def test_a_sample_takes_from_every_form_of_input(tmp_path: Path) -> None:
    """JSON lines, packed files and Parquet's row groups."""
    numbers = list(range(20_000))
    pq.write_table(
        pa.table({"id": numbers, "text": [f"t{n}" for n in numbers]}), tmp_path / "a.parquet", row_group_size=4000
    )
    job = prepared_job(tmp_path, input={"path": "a.parquet", "key": ["id"]})
    assert max(row.values["id"] for row in sample_rows(job, 100)) >= 12_000  # type: ignore[type-var]
    lines = "".join(f'{{"id": {n}, "text": "t{n}"}}\n' for n in numbers)
    (tmp_path / "b.jsonl").write_text(lines, encoding="utf-8")
    job = prepared_job(tmp_path, input={"path": "b.jsonl", "key": ["id"]})
    assert max(row.values["id"] for row in sample_rows(job, 100)) >= 12_000  # type: ignore[type-var]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    job = prepared_job(tmp_path, input={"path": "c.jsonl.gz", "key": ["id"]})
    assert len(sample_rows(job, 100)) == 100


ESTIMATE: dict[str, Any] = {
    "method": "characters",
    "input_tokens_per_request": 100.0,
    "output_tokens_per_request": {"low": 8.0, "expected": 20.0, "high": 64, "method": "m"},
    "usd_per_request": {"low": "0.00001", "expected": "0.00002", "high": "0.00003", "unknown": None},
}


def totals(**changes: Any) -> dict[str, Any]:
    """Return a run's sums: ten answers of 110 tokens in and 25 out, 0.00025 dollars together."""
    calls = CallTotals(10, 10, 0, 1100, 250, Decimal("0.00025"), 0).to_json()
    return dict(calls) | changes


def test_what_came_is_set_beside_what_was_expected() -> None:
    """10 % and 25 % more tokens, 25 % more dollars."""
    found = compare(ESTIMATE, totals())
    assert found["requests"] == 10
    assert found["input_tokens_per_request"] == {"estimated": 100.0, "actual": 110.0, "error": 0.1}
    assert found["output_tokens_per_request"] == {"estimated": 20.0, "actual": 25.0, "error": 0.25}
    assert found["usd_per_request"] == {"estimated": "0.00002", "actual": "0.000025", "error": 0.25, "unknown": None}
    line = estimate_line(found)
    assert line == (
        "$0.000200 expected, $0.000250 came (+25%); input 100 tokens a call, 110 came (+10%); "
        "output 20.0 tokens a call, 25.0 came (+25%)"
    )


def test_calls_without_an_answer_do_not_count_as_requests() -> None:
    """Two refused for their rate have no tokens; one cut off has."""
    found = compare(ESTIMATE, totals(sent=13, failed=3, failures={"rate_limited": 2, "truncated": 1}))
    assert found["requests"] == 11
    assert found["input_tokens_per_request"]["actual"] == 100.0


def test_an_unknown_cost_stays_unknown_beside_the_estimate() -> None:
    """All calls unknown: null and the reason; the words say it too."""
    estimate = ESTIMATE | {"usd_per_request": {"low": None, "expected": None, "high": None, "unknown": "no price"}}
    found = compare(estimate, totals(cost_usd="0", unknown_cost=10, cost_reasons={"no model x": 10}))
    usd = found["usd_per_request"]
    assert (usd["estimated"], usd["actual"], usd["error"]) == (None, None, None)
    assert usd["unknown"] == "10 of 10 calls have an unknown cost: no model x"
    assert (estimate_line(found) or "").startswith("cost unknown (10 of 10 calls have an unknown cost: no model x)")


def test_a_run_that_sent_nothing_has_nothing_to_compare() -> None:
    """Every actual is null, and there is no line."""
    found = compare(ESTIMATE, dict(CallTotals().to_json()))
    assert found["input_tokens_per_request"]["actual"] is None
    assert estimate_line(found) is None
    assert estimate_line(None) is None


def test_counters_that_a_server_does_not_give_are_not_zero() -> None:
    """No tokens counted in any call: unknown, not 100 % too many."""
    found = compare(ESTIMATE, totals(input_tokens=0, output_tokens=0))
    assert found["input_tokens_per_request"] == {"estimated": 100.0, "actual": None, "error": None}
