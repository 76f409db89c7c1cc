"""The facts of every kind of run, and the findings that real tables give."""

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipelines.facts_calls import MOST_BUCKETS, bucket_seconds
from pipelines.run_facts import run_facts
from tests.unit.cli_outputs import RUN_1, RUN_2, make_call, row_end, write_run
from tests.unit.facts_outputs import answered, died, facts_job, write_answers, write_facts_run
from transforms.records.call import CallStatus, CallType, CostSource
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.request import Lane
from transforms.records.row import Outcome
from transforms.storage.audit_rows import seal_run

KEYS = {
    "run", "rows", "outcomes", "calls", "cost", "latency_ms", "tokens", "batches", "batches_total", "throttling", "errors",
    "answers", "findings", "previous_run_id",
}  # fmt: skip
LABELS = {"type": "object", "properties": {"label": {"enum": ["good", "bad", "none"]}}}


def _facts(output: Path, run_id: str | None = None) -> dict[str, Any]:
    facts = run_facts(str(output), run_id)
    assert set(facts) == KEYS
    assert orjson.loads(orjson.dumps(facts)) == facts
    return facts


def _codes(facts: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in facts["findings"]]


def test_calls_money_and_errors_of_a_run_add_up(tmp_path: Path) -> None:
    """Retries, repairs, unknown costs and HTTP exchanges are each counted where they belong."""
    good, end, row = answered(RUN_1, "a", "good", 0, attempt=2, latency_ms=100.0)
    limited = make_call(
        1, "a", status=CallStatus.ERROR, kind=FailureKind.RATE_LIMITED, finish_reasons=(), latency_ms=1.0
    )
    lost = make_call(2, "a", status=CallStatus.ERROR, kind=FailureKind.TIMEOUT, finish_reasons=(), cost_usd=None,
                     cost_source=CostSource.UNKNOWN, cost_reason="the reply was lost", input_tokens=None)  # fmt: skip
    http = make_call(3, "a", call_type=CallType.HTTP)
    cut, cut_end, letter = died(RUN_1, "b", FailureKind.TRUNCATED, 4, latency_ms=300.0)
    calls = [good, limited, lost, http, cut]
    write_facts_run(
        tmp_path, job=facts_job(), calls=calls, rows=[end, cut_end], enriched=[row], letters=[letter],
        summary={"budget": {"max_usd": "1"}, "estimate": {"estimated": "1"}},
    )  # fmt: skip
    facts = _facts(tmp_path)
    assert facts["rows"] == {"in": 2, "enriched": 1, "dead_lettered": 1, "pending": 0}
    assert facts["calls"] == {"sent": 4, "succeeded": 1, "failed": 3, "reused": -3, "http": 1, "retries": 1}
    cost = facts["cost"]
    assert (cost["usd"], cost["unknown_calls"], cost["reasons"]) == ("0.0001035", 1, {"the reply was lost": 1})
    assert cost["per_1000_rows_usd"] == "0.05175"
    assert (cost["plan"], cost["budget"]) == ({"estimated": "1"}, {"max_usd": "1"})
    assert [(by["model"], by["mode"], by["calls"]) for by in cost["by"]] == [("gpt-4o-mini", "per_request", 4)]
    assert (facts["latency_ms"]["count"], facts["latency_ms"]["max"]) == (2, 300.0)
    assert sum(each["count"] for each in facts["latency_ms"]["histogram"]) == 2
    assert facts["tokens"]["input"]["mean"] == 100
    assert facts["outcomes"] == [
        {"outcome": "enriched", "kind": None, "rows": 1},
        {"outcome": "dead_lettered", "kind": "truncated", "rows": 1},
    ]
    assert [(error["kind"], error["rows"], error["calls"]) for error in facts["errors"]] == [
        ("truncated", 1, 1), ("rate_limited", 0, 1), ("timeout", 0, 1)
    ]  # fmt: skip
    assert facts["errors"][0]["examples"][0]["reason"] == "why b"
    assert facts["errors"][1]["examples"][0]["row_id"] == "a"
    timeline = facts["throttling"]["timeline"]
    assert sum(bucket["calls"] for bucket in timeline) == 4
    assert facts["findings"] == []


def test_nested_answers_have_one_entry_for_each_leaf(tmp_path: Path) -> None:
    """Members of members, items of arrays, numbers and booleans; an enum is a category however few the answers."""
    answers = [
        {"label": "good", "about": {"stars": 5, "sure": True}, "tags": [f"x{n}", "y"], "note": f"note {n} on it"}
        for n in range(6)
    ]
    answers += [{"label": None, "about": None, "tags": [], "note": None}]
    schema = {
        "type": "object",
        "properties": {"label": {"$ref": "#/$defs/L"}},
        "$defs": {"L": {"enum": ["good", "bad"]}},
    }
    write_answers(tmp_path, answers, job=facts_job(schema))
    found = {each["field"]: each for each in _facts(tmp_path)["answers"]}
    assert {field: each["kind"] for field, each in found.items()} == {
        "label.label": "category",
        "label.about.stars": "number",
        "label.about.sure": "boolean",
        "label.tags[]": "text",
        "label.note": "text",
    }
    assert (found["label.label"]["count"], found["label.label"]["nulls"]) == (6, 1)
    assert found["label.label"]["values"] == [{"value": "good", "count": 6, "share": 1.0}]
    assert found["label.about.stars"]["stats"] == {"min": 5.0, "p50": 5.0, "mean": 5.0, "max": 5.0}
    assert found["label.tags[]"]["count"] == 12
    assert found["label.note"]["length"] == {"p50": 12, "p99": 12, "max": 12}


def test_json_lines_give_the_same_answers_as_parquet(tmp_path: Path) -> None:
    """The sink makes no difference; a text that looks like a date stays a text."""
    answers = [{"label": "good" if n % 2 else "bad", "day": "2026-01-01", "n": n} for n in range(20)]
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["good", "bad"]}, "day": {"type": "string"}, "n": {"type": "integer"}},
    }
    for name, jsonl in (("p", False), ("j", True)):
        write_answers(tmp_path / name, answers, job=facts_job(schema), jsonl=jsonl)
    assert _facts(tmp_path / "j")["answers"] == _facts(tmp_path / "p")["answers"]


def test_a_python_class_in_json_lines_is_read_by_its_lines(tmp_path: Path) -> None:
    """Where no schema is at hand the lines show the members."""
    job = facts_job()
    job["answer"] = {**job["answer"], "python": "pkg:Review"}
    write_answers(tmp_path, [{"label": "good"}] * 10, job=job, jsonl=True)
    assert [each["field"] for each in _facts(tmp_path)["answers"]] == ["label.label"]


def test_plain_text_answers_are_one_field(tmp_path: Path) -> None:
    """Few short texts that repeat are categories; others are texts with their lengths."""
    write_answers(tmp_path / "labels", ["good", "bad"] * 20)
    write_answers(tmp_path / "texts", [f"This is text number {n} of all." for n in range(30)])
    assert _facts(tmp_path / "labels")["answers"][0]["kind"] == "category"
    texts = _facts(tmp_path / "texts")["answers"][0]
    assert (texts["kind"], texts["distinct"], texts["length"]["max"]) == ("text", 30, 30)


def test_reused_rows_count_in_the_answers_but_not_as_calls(tmp_path: Path) -> None:
    """A run that sent nothing still has distributions, costs nothing, and has drifted from nothing."""
    answers = ["good", "bad"] * 60
    write_answers(tmp_path, answers)
    write_answers(tmp_path, answers, RUN_2, called=False)
    facts = _facts(tmp_path)
    assert facts["calls"]["sent"] == 0
    assert (facts["cost"]["usd"], facts["cost"]["per_1000_rows_usd"], facts["cost"]["by"]) == ("0", None, [])
    assert facts["latency_ms"] is None
    assert facts["tokens"] == {"input": None, "output": None}
    assert facts["throttling"]["timeline"] == []
    assert facts["answers"][0]["count"] == 120
    assert facts["previous_run_id"] == RUN_1
    assert facts["findings"] == []


def test_a_crashed_run_tells_its_calls_and_no_rows(tmp_path: Path) -> None:
    """What was paid for is told; the rows are null, not 0."""
    write_run(tmp_path, rows=[], calls=[make_call(n, f"r{n}") for n in range(3)], finish=False)
    with pytest.raises(ConfigError, match="under way, or was killed"):
        run_facts(str(tmp_path), RUN_1)
    seal_run(str(tmp_path), RUN_1)
    facts = _facts(tmp_path)
    assert facts["run"]["status"] == "crashed"
    assert facts["rows"] == {"in": None, "enriched": None, "dead_lettered": None, "pending": None}
    assert (facts["calls"]["sent"], facts["calls"]["reused"], facts["cost"]["usd"]) == (3, None, "0.0001035")
    assert facts["outcomes"] == []


def test_pending_rows_are_told_with_what_they_wait_for(tmp_path: Path) -> None:
    """One kind of reason is named; a detached run has no answers yet."""
    rows = [row_end(f"r{n}", f"r{n}", Outcome.PENDING) for n in range(4)]
    reasons = {"pending_reasons": [{"kind": "budget", "reason": "the budget is spent", "requests": 4}]}
    write_facts_run(tmp_path, job=facts_job(), rows=rows, summary=reasons)
    facts = _facts(tmp_path)
    assert facts["outcomes"] == [{"outcome": "pending", "kind": "budget", "rows": 4}]
    assert facts["answers"][0]["count"] == 0


def test_an_input_without_rows_has_facts_too(tmp_path: Path) -> None:
    """Everything is empty, nothing fails; also where an empty JSON-lines file was left."""
    write_facts_run(tmp_path, job=facts_job(LABELS))
    facts = _facts(tmp_path)
    assert facts["rows"]["in"] == 0
    assert (facts["outcomes"], facts["errors"], facts["findings"], facts["batches"]) == ([], [], [], [])
    assert [each["count"] for each in facts["answers"]] == [0]


def test_unknown_costs_stay_unknown(tmp_path: Path) -> None:
    """A run whose prices nobody knows costs null, not 0."""
    unknown = {"cost_usd": None, "cost_source": CostSource.UNKNOWN, "cost_reason": "no price list knows the model"}
    made = [answered(RUN_1, f"r{n}", "good", n, **unknown) for n in range(3)]
    calls, rows, enriched = (list(part) for part in zip(*made, strict=True))
    write_facts_run(tmp_path, job=facts_job(), calls=calls, rows=rows, enriched=enriched)
    cost = _facts(tmp_path)["cost"]
    assert (cost["usd"], cost["per_1000_rows_usd"], cost["unknown_calls"]) == (None, None, 3)
    assert cost["by"][0]["cost_usd"] is None


def test_times_in_a_batch_are_not_latencies(tmp_path: Path) -> None:
    """An answer in a batch takes as long as the batch: it would hide what a call takes."""
    write_answers(tmp_path, ["good"] * 5, mode="provider_batch_api")
    facts = _facts(tmp_path)
    assert (facts["latency_ms"], facts["throttling"]["timeline"]) == (None, [])
    assert (facts["batches_total"], facts["batches"][0]["mode"]) == (1, "provider_batch_api")


def test_no_payloads_are_needed(tmp_path: Path) -> None:
    """With audit.payloads: none the facts are the same."""
    bare = {"request_json": None, "response_json": None}
    for name, changes in (("full", {}), ("none", bare)):
        made = [answered(RUN_1, f"r{n}", "good", n, **changes) for n in range(6)]
        calls, rows, enriched = (list(part) for part in zip(*made, strict=True))
        write_facts_run(tmp_path / name, job=facts_job(), calls=calls, rows=rows, enriched=enriched)
    assert _facts(tmp_path / "none") == _facts(tmp_path / "full")


def _healthy(seed: int, run_id: str, output: Path) -> None:
    """Write a run as good runs are: skewed labels, texts of all lengths, few failures, log-normal costs."""
    draws = random.Random(seed)
    made = []
    for n in range(400):
        words = " ".join("".join(draws.choices("abcdefghijklmnop", k=5)) for _ in range(draws.randrange(4, 20)))
        label = draws.choices(["good", "bad", "none"], [0.78, 0.17, 0.05])[0]
        answer = {"label": label, "stars": min(5, max(1, round(draws.gauss(4, 1)))), "sum": words}
        cost = Decimal(f"{draws.lognormvariate(-10, 0.7):.12f}")
        made.append(answered(run_id, f"{seed}-{n}", answer, n, cost_usd=cost, output_tokens=draws.randrange(20, 60)))
    calls, rows, enriched = (list(part) for part in zip(*made, strict=True))
    letters = []
    for n in range(4):
        call, end, letter = died(run_id, f"{seed}-dead-{n}", FailureKind.REFUSAL, 400 + n)
        calls.append(call)
        rows.append(end)
        letters.append(letter)
    write_facts_run(output, run_id, job=facts_job(LABELS), calls=calls, rows=rows, enriched=enriched, letters=letters)


def test_healthy_runs_have_no_findings(tmp_path: Path) -> None:
    """Two nights of different rows, and not one false alarm."""
    for seed, run_id in enumerate((RUN_1, RUN_2)):
        _healthy(seed, run_id, tmp_path)
    facts = _facts(tmp_path)
    assert (facts["findings"], facts["previous_run_id"]) == ([], RUN_1)


def test_a_sick_run_has_all_seven_findings(tmp_path: Path) -> None:
    """Each is found in the tables, with rows to look at."""
    _healthy(0, RUN_1, tmp_path)
    text = "The customer says that the product works as it should in every way."
    made = [
        answered(
            RUN_2,
            f"s{n}",
            {"label": "good", "stars": 1, "sum": text},
            n,
            cost_usd=Decimal("0.01" if n == 7 else "0.00005"),
        )
        for n in range(300)
    ]
    calls, rows, enriched = (list(part) for part in zip(*made, strict=True))
    letters = []
    for n in range(60):
        kind = FailureKind.TRUNCATED if n % 2 else FailureKind.CONTENT_FILTERED
        call, end, letter = died(RUN_2, f"d{n}", kind, 300 + n)
        calls.append(call)
        rows.append(end)
        letters.append(letter)
    calls += [make_call(400 + n, f"s{n}", RUN_2, lane=Lane.REPAIR) for n in range(30)]
    write_facts_run(tmp_path, RUN_2, job=facts_job(LABELS), calls=calls, rows=rows, enriched=enriched, letters=letters)
    facts = _facts(tmp_path)
    assert set(_codes(facts)) == {
        "truncation_share", "dominant_value", "refusals", "repair_share", "cost_outliers", "near_duplicate_answers", "drift",
    }  # fmt: skip
    by_code = {finding["code"]: finding for finding in facts["findings"]}
    assert by_code["cost_outliers"]["rows"] == ["s7"]
    assert by_code["repair_share"]["rows"] == ["s0", "s10", "s11"]
    assert all(by_code[code]["rows"] for code in by_code if code != "drift")
    fields = [finding["title"].partition(":")[0] for finding in facts["findings"] if finding["code"] == "drift"]
    assert {"label.stars", "label.sum"} <= set(fields)


@pytest.mark.parametrize("span_s", [0.0, 0.05, 3.0, 61.0, 5000.0, 86_400.0, 3e7])
@pytest.mark.parametrize("first_s", [0.0, 1.7, 4000.0])
def test_a_time_line_has_few_points(first_s: float, span_s: float) -> None:
    """From a moment to a year."""
    width = bucket_seconds(first_s, first_s + span_s)
    assert (first_s + span_s) // width - first_s // width < MOST_BUCKETS
