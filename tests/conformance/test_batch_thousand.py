"""A thousand reviews by batch (fewer at three providers) where rows fail, vanish, come twice, or come for nobody (P1, P2, P3, P4, P5, P7)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from pipelines.sandbox.batch_faults import BatchFaults
from pipelines.sandbox.faults import FaultPlan
from pipelines.sandbox.server import RunningSandbox
from pipelines.summary import RunResult
from tests.conformance.batch_jobs import KEY, KEYS, PROVIDERS, Workshop
from tests.conformance.jobs import Output, exact_sum, plain_rows
from tests.conformance.verified_outputs import findings
from transforms.records.failure import FailureKind

_ROWS = {"openai": 1000, "azure_openai": 300, "anthropic": 300, "openrouter": 300}
_FAULTS = FaultPlan(
    rate_limit=0.005,
    server_error=0.03,
    overloaded=0.005,
    wrong_json=0.02,
    refusal=0.015,
    truncation=0.015,
    retry_after_s=0.1,
    batch=BatchFaults(missing=0.02, duplicate=0.02, unknown=0.01, status_zero=0.01, malformed_line=7),
)
#: What a row of a batch may come to that a call in real time may put right.
_REDONE = ("server_error", "overloaded", "rate_limited", "missing_result", "invalid_response")


@dataclass(frozen=True)
class _FaultyRun:
    provider: str
    result: RunResult
    output: Output
    bill: dict[str, Any]

    @property
    def count(self) -> int:
        return _ROWS[self.provider]

    @property
    def run_id(self) -> str:
        run_id: str = self.result.summary["run_id"]
        return run_id


@pytest.fixture(scope="module", params=PROVIDERS)
def faulty(
    request: pytest.FixtureRequest,
    runner: str,
    shared_batch_sandbox: RunningSandbox,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[_FaultyRun]:
    """One run per provider, looked at by every test of this file."""
    provider: str = request.param
    shared_batch_sandbox.set_faults(_FAULTS)
    shared_batch_sandbox.reset()
    workshop = Workshop(tmp_path_factory.mktemp(provider), shared_batch_sandbox, runner)
    with pytest.MonkeyPatch.context() as patch:
        for name in KEYS:
            patch.setenv(name, KEY)
        workshop.write(provider, plain_rows(_ROWS[provider]), pool={"max_in_flight": 200})
        result = workshop.run()
    yield _FaultyRun(provider, result, workshop.output, shared_batch_sandbox.bill())
    shared_batch_sandbox.set_faults()


def test_every_id_is_enriched_or_dead_lettered_exactly_once(faulty: _FaultyRun) -> None:
    """Each input id is in the Parquet files or in the dead letters, once, and in the audit with that outcome (P1)."""
    enriched = Counter(row["id"] for row in faulty.output.enriched(faulty.run_id))
    dead = Counter(letter["row_id"] for letter in faulty.output.dead_letters(faulty.run_id))
    assert enriched + dead == Counter(row["id"] for row in plain_rows(faulty.count))
    ends = faulty.output.row_ends(faulty.run_id)
    assert ends == dict.fromkeys(enriched, "enriched") | dict.fromkeys(dead, "dead_lettered")
    expected = {"in": faulty.count, "enriched": len(enriched), "dead_lettered": len(dead), "pending": 0}
    assert (faulty.result.exit_code, faulty.result.summary["rows"]) == (0, expected)


def test_what_the_batch_left_unanswered_is_redone_one_by_one(faulty: _FaultyRun) -> None:
    """A row whose result failed, was lost or can't be read is asked in real time; every other one is not (P3, P7)."""
    by_batch = faulty.output.query(
        "select request_id, outcome from {calls} c join {batches} b using (batch_id)"
        " where b.mode = 'provider_batch_api' and b.provider_batch_id is not null and call_type = 'LLM'"
    )
    outcomes = {call["request_id"]: call["outcome"] for call in by_batch}
    assert len(outcomes) == len(by_batch) == faulty.count
    assert set(_REDONE) & set(outcomes.values()) == set(outcomes.values()) - {"ok", "refusal", "truncated"}
    assert Counter(outcomes.values())[str(FailureKind.MISSING_RESULT)] >= faulty.count * 0.02
    unanswered = {request_id for request_id, outcome in outcomes.items() if outcome in _REDONE}
    again = faulty.output.values(
        "select distinct request_id from {calls} c join {batches} b using (batch_id)"
        " where b.provider_batch_id is null and c.lane <> 'repair'"
    )
    assert set(again) == unanswered
    letters = Counter(letter["kind"] for letter in faulty.output.dead_letters(faulty.run_id))
    assert {"refusal", "truncated"} <= set(letters) <= {"refusal", "truncated", "invalid_output"}


def test_nothing_is_paid_twice_or_thrown_away(faulty: _FaultyRun) -> None:
    """One batch is on the bill, no request is paid twice, and each answer that was paid for is on record (P2, P3)."""
    assert (faulty.bill["batch_count"], faulty.bill["paid_twice"]) == (1, 0)
    paid = faulty.output.values(
        "select count(*) from {calls} where call_type = 'LLM' and outcome in ('ok', 'refusal', 'truncated')"
    )
    assert paid == [faulty.bill["batch_billed"] + faulty.bill["accepted"]]


def test_the_output_proves_itself(faulty: _FaultyRun) -> None:
    """Hashes, references, rows and money hold by `rowbeam verify`, as of every output (P5)."""
    assert findings(faulty.output.folder) == []


def test_cost_in_the_summary_is_the_exact_sum_over_calls(faulty: _FaultyRun) -> None:
    """Money adds up to the last digit, in the summary, in the runs table and over the calls."""
    costs = faulty.output.values("select cost_usd from {calls} where call_type = 'LLM'")
    total = exact_sum(costs)
    assert total > 0
    assert Decimal(faulty.result.summary["cost_usd"]) == total
    assert faulty.output.values("select cost_usd from {runs}") == [total]
    assert faulty.result.summary["calls_of_unknown_cost"] == costs.count(None)
    assert set(faulty.output.values("select cost_usd from {calls} where call_type = 'HTTP'")) == {Decimal(0)}


def test_every_exchange_is_on_record_under_one_execution_record(faulty: _FaultyRun) -> None:
    """HTTP calls 0..k, then one LLM call per request with request and response or error (P4, P5)."""
    [batch] = faulty.output.query("select * from {batches} where provider_batch_id is not null")
    calls = faulty.output.query(
        "select call_index, call_type, custom_id, status, request_json, response_json, error_json from {calls}"
        " where batch_id = $1 order by call_index",
        batch["batch_id"],
    )
    assert [call["call_index"] for call in calls] == list(range(len(calls)))
    kinds = [call["call_type"] for call in calls]
    assert kinds == ["HTTP"] * (len(calls) - faulty.count) + ["LLM"] * faulty.count
    assert (batch["status"], batch["request_count"], batch["pending_count"]) == ("completed", faulty.count, 0)
    succeeded = sum(call["status"] == "SUCCESS" for call in calls if call["call_type"] == "LLM")
    assert (batch["succeeded_count"], batch["failed_count"]) == (succeeded, faulty.count - succeeded)
    for call in calls[-faulty.count :]:
        assert "Review number" in call["request_json"]
        assert (call["response_json"] or call["error_json"]) is not None
        assert (call["status"] == "SUCCESS") == (call["error_json"] is None)
