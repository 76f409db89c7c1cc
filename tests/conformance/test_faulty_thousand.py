"""A thousand reviews through a provider at which a fifth of the requests goes wrong (P1, P3, P4, P5, P7)."""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from pipelines.explain import explain_row
from pipelines.sandbox.faults import FaultPlan
from pipelines.sandbox.server import RunningSandbox
from pipelines.summary import RunResult
from tests.conformance.jobs import Output, broken_references, exact_sum, review_rows, run, write_csv, write_job
from tests.conformance.verified_outputs import findings

#: A fifth in all. A 429 or 503 holds the whole pool back for a second or two, as it should, so these are few.
_FAULTS = FaultPlan(
    rate_limit=0.01,
    server_error=0.04,
    bad_gateway=0.04,
    overloaded=0.005,
    reset=0.03,
    cut_body=0.03,
    wrong_json=0.02,
    refusal=0.015,
    truncation=0.015,
    slow=0.01,
    retry_after_s=0.2,
)
_OUTCOMES = {"refusal": "refusal", "truncation": "truncated"}


@dataclass(frozen=True)
class _FaultyRun:
    rows: list[dict[str, str]]
    result: RunResult
    output: Output
    bill: dict[str, Any]
    stats: dict[str, Any]

    @property
    def run_id(self) -> str:
        run_id: str = self.result.summary["run_id"]
        return run_id


@pytest.fixture(scope="module")
def faulty(runner: str, shared_sandbox: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> _FaultyRun:
    """One run, looked at by every test of this file."""
    folder = tmp_path_factory.mktemp("thousand")
    rows = review_rows(1000)
    write_csv(folder / "reviews.csv", rows)
    shared_sandbox.set_faults(_FAULTS)
    shared_sandbox.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-sandbox-key-0123456789")
        result = run(write_job(folder, shared_sandbox.base_url("openai"), pool={"max_in_flight": 400}), runner=runner)
    bill = shared_sandbox.bill(entries=True)
    stats = shared_sandbox.stats()
    shared_sandbox.set_faults()
    return _FaultyRun(rows, result, Output(folder / "out"), bill, stats)


def test_every_id_is_enriched_or_dead_lettered_exactly_once(faulty: _FaultyRun) -> None:
    """Each input id is in the Parquet files or in the dead letters, once, and in the audit with that outcome (P1)."""
    enriched = Counter(row["id"] for row in faulty.output.enriched(faulty.run_id))
    dead = Counter(letter["row_id"] for letter in faulty.output.dead_letters(faulty.run_id))
    assert enriched + dead == Counter(row["id"] for row in faulty.rows)
    ends = faulty.output.row_ends(faulty.run_id)
    assert ends == dict.fromkeys(enriched, "enriched") | dict.fromkeys(dead, "dead_lettered")
    assert faulty.result.exit_code == 0
    expected = {"in": 1000, "enriched": len(enriched), "dead_lettered": len(dead), "pending": 0}
    assert faulty.result.summary["rows"] == expected


def test_every_kind_of_fault_happened(faulty: _FaultyRun) -> None:
    """The run met each planned kind, so that the other tests of this file mean something."""
    planned = {kind for kind, share in _FAULTS.model_dump().items() if isinstance(share, float) and 0 < share < 0.1}
    assert planned <= set(faulty.stats["faults"])
    assert sum(faulty.stats["faults"].values()) >= 150


def test_every_reference_of_the_audit_resolves(faulty: _FaultyRun) -> None:
    """No row, call, batch or member points at nothing, and call_index counts 0..n-1 in each batch (P5)."""
    assert broken_references(faulty.output) == {}


def test_the_output_proves_itself(faulty: _FaultyRun) -> None:
    """Hashes, references, rows and money hold by `rowbeam verify`, as of every output (P5)."""
    assert findings(faulty.output.folder) == []


def test_cost_in_the_summary_is_the_exact_sum_over_calls(faulty: _FaultyRun) -> None:
    """Money adds up to the last digit, in the summary, in the runs table and over the calls."""
    costs = faulty.output.values("select cost_usd from {calls}")
    total = exact_sum(costs)
    assert total > 0
    assert Decimal(faulty.result.summary["cost_usd"]) == total
    assert faulty.output.values("select cost_usd from {runs}") == [total]
    assert faulty.result.summary["calls_of_unknown_cost"] == costs.count(None)


def test_calls_and_tokens_in_the_summary_are_those_of_the_audit_and_of_the_provider(faulty: _FaultyRun) -> None:
    """Every exchange the provider saw is one row of calls, and the tokens are those it answered with."""
    [found] = faulty.output.query(
        "select count(*) as sent, count(*) filter (status = 'SUCCESS') as succeeded,"
        " sum(input_tokens)::bigint as input, sum(output_tokens)::bigint as output from {calls}"
    )
    calls, tokens = faulty.result.summary["calls"], faulty.result.summary["tokens"]
    assert calls["sent"] == found["sent"] == faulty.stats["requests"]
    assert calls["succeeded"] == found["succeeded"]
    assert calls["failed"] == found["sent"] - found["succeeded"]
    assert sum(faulty.result.summary["failed_calls"].values()) == calls["failed"]
    answered = [entry for entry in faulty.bill["entries"] if entry["state"] == "answered"]
    assert tokens == {"input": found["input"], "output": found["output"]}
    assert tokens["input"] == sum(entry["input_tokens"] for entry in answered)
    assert tokens["output"] == sum(entry["output_tokens"] for entry in answered)


@pytest.mark.parametrize("fault", ["refusal", "truncation"])
def test_refusals_and_truncations_are_outcomes_of_their_own(faulty: _FaultyRun, fault: str) -> None:
    """What the provider refused or cut off is asked once and is a dead letter of that kind, never invalid output."""
    kind = _OUTCOMES[fault]
    entries = [entry for entry in faulty.bill["entries"] if entry["fault"] == fault]
    asked = faulty.output.values("select request_id from {calls} where outcome = $1", kind)
    assert len(asked) == len(set(asked)) == len(entries)
    letters = [letter for letter in faulty.output.dead_letters(faulty.run_id) if letter["kind"] == kind]
    settling = faulty.output.values("select call_id from {calls} where outcome = $1", kind)
    assert {letter["call_id"] for letter in letters} == set(settling)
    assert letters
    assert not any(letter["retryable"] for letter in letters)


def test_dead_letters_name_the_kind_of_the_call_that_settled_them(faulty: _FaultyRun) -> None:
    """The kind of a dead letter is its last call's outcome, or invalid_output after a call that went well."""
    outcomes = {row["call_id"]: row for row in faulty.output.query("select call_id, outcome, lane from {calls}")}
    letters = faulty.output.dead_letters(faulty.run_id)
    assert letters
    for letter in letters:
        call = outcomes[letter["call_id"]]
        if letter["kind"] == "invalid_output":
            assert (call["outcome"], call["lane"]) == ("ok", "repair")
        else:
            assert letter["kind"] == call["outcome"]
        assert letter["row"]["id"] == letter["row_id"]
        assert letter["attempts"] >= 1


def test_retries_are_per_request(faulty: _FaultyRun) -> None:
    """Attempts of a request count 1, 2, 3 ..., only retryable outcomes are followed by another, answers by none (P7)."""
    attempts: dict[str, list[tuple[int, str]]] = {}
    for call in faulty.output.query("select request_id, attempt, outcome from {calls} order by request_id, attempt"):
        attempts.setdefault(call["request_id"], []).append((call["attempt"], call["outcome"]))
    final = {"ok", "refusal", "truncated"}
    for tries in attempts.values():
        assert [number for number, _ in tries] == list(range(1, len(tries) + 1))
        assert not final & {outcome for _, outcome in tries[:-1]}
    assert any(len(tries) > 2 for tries in attempts.values())


def test_every_call_is_on_record_in_full(faulty: _FaultyRun) -> None:
    """Request, response or error, model, tokens, cost and hashes stand in the calls table (P4)."""
    answered = ["ok", "refusal", "truncated"]
    assert not faulty.output.values(
        "select call_id from {calls} where list_contains($1, outcome) and (response_json is null"
        " or input_tokens is null or output_tokens is null or cost_usd is null"
        " or response_model is null or len(finish_reasons) = 0 or http_status <> 200)",
        answered,
    )
    assert not faulty.output.values(
        "select call_id from {calls} where not list_contains($1, outcome) and error_json is null", answered
    )
    assert not faulty.output.values(
        "select call_id from {calls} where request_json is null or latency_ms < 0"
        " or request_model is null or prompt_sha256 is null or template_sha256 is null"
    )


def test_any_row_can_be_explained(faulty: _FaultyRun) -> None:
    """A plain answer, a retried one, a repaired one and each kind of dead letter tell their whole story (P5)."""
    picked = faulty.output.query(
        "select arg_min(r.row_id, r.row_id) as row_id, r.outcome, c.lane, c.outcome as kind, c.attempt > 1 as retried"
        " from {rows} r join {calls} c using (call_id) group by all"
    )
    assert len(picked) >= 5
    for row in picked:
        story = explain_row(str(faulty.output.folder), row["row_id"])
        assert story["outcome"] == row["outcome"]
        assert story["values"]["id"] == row["row_id"]
        assert story["calls"][-1]["outcome"] == row["kind"]
        assert {call["batch_id"] for call in story["calls"]} == {batch["batch_id"] for batch in story["batches"]}
        assert (story["repair"] is not None) == any(call["lane"] == "repair" for call in story["calls"])
        assert (story["answer"] is None) == (row["outcome"] == "dead_lettered")
        assert story["source"].split(":")[0].endswith("reviews.csv")
