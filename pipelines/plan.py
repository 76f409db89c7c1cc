"""What a run of a job would do, send and cost: reads the input and the ledger, sends nothing, needs no Beam."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipelines.budget import plan_budget, unknown_words
from pipelines.estimate import Load, estimate_cost, estimate_time, expected_output, output_range
from pipelines.estimate_basis import Basis, find_basis
from pipelines.model_catalog import judge_model
from pipelines.plan_batch import batch_warnings, plan_batch, plan_route
from pipelines.plan_scan import Failures, Scan, scan_input, short_id
from pipelines.prepare import PreparedJob, list_in_flight
from pipelines.text import money
from transforms.records.failure import FailureKind, Stage
from transforms.records.model_entry import ModelFinding
from transforms.records.request import Lane
from transforms.rules.price import Processing
from transforms.storage.batch_members import read_members
from transforms.storage.bigquery_input import query_bytes
from transforms.storage.ledger import read_answers

_DAMAGE = (
    "can't be read to the end: rows are missing, and a run would end with exit code 1; get the file again from its "
    "source"
)


@dataclass(slots=True)
class _Share:
    """Some requests, with their input tokens by the character rule."""

    requests: int = 0
    ruled_tokens: int = 0


def make_plan(prepared: PreparedJob) -> dict[str, Any]:
    """Return what a run would do, as JSON values with stable keys.

    Keys: job, output, provider, model, model_entry (of the model manifest, or null), model_findings [{level, code, key,
    says}], rows {in, asked, failed}, failures, requests {distinct, shared, reused,
    in_flight, to_send}, savings {shared, reused, in_flight: {requests, input_tokens, output_tokens, usd}}, tokens
    {input, input_low, input_high, output_low, output_expected, output_high, longest_input, method, error,
    output_method}, cost_usd {low, expected, high, unknown}, time {low_s, high_s, limited_by, assumption}, batch
    {available, unavailable, cost_usd, batches, max_requests, time}, budget (`plan_budget`, or null), route {mode, chosen, why}, warnings.

    cost_usd and time are those of real time, batch those of the provider's batch API (`plan_batch`), whichever way
    `route` says a run would go; savings are what the requests would be expected to cost that way. requests.in_flight
    are in a batch of an earlier run, which is collected and not sent again. Dollars are text, and null where they are
    not known: `unknown` then says why. longest_input is that of the longest request, expected.

    Raises:
        InputError, OSError: an input can't be read any more.
        InternalError: the ledger is damaged.
    """
    scan, entry = scan_input(prepared), prepared.model_entry
    distinct = len(scan.requests)
    basis = find_basis(prepared, scan.sample.items)
    longest = max(scan.requests.values(), default=0)
    shared = _Share(scan.asked - distinct, scan.shared_tokens)
    reused = _take(scan.requests, _settled(prepared.segments))
    in_flight = _take(scan.requests, _in_flight(prepared))
    to_send = len(scan.requests)
    load = _load(prepared, basis, _Share(to_send, sum(scan.requests.values())))
    cost = estimate_cost(prepared.provider_name, prepared.price_model, load)
    batch = plan_batch(prepared, load, _part(scan.line_bytes, to_send, distinct))
    route = plan_route(prepared, to_send)
    processing: Processing = "batch" if route["chosen"] == "batch" else "real_time"
    findings = _model_findings(prepared, round(basis.scale.tokens(longest)))
    warnings = [finding.line for finding in findings]
    warnings += _warnings(prepared, scan, batch["cost_usd"] if processing == "batch" else cost, to_send)
    budget = plan_budget(prepared, processing, to_send, _part(scan.prompt_bytes, to_send, distinct))
    warnings += _budget_warnings(budget)
    if processing == "batch":
        warnings += batch_warnings(prepared.batching, load, batch["batches"])
    return {
        "job": prepared.job.name,
        "output": prepared.job.output,
        "provider": prepared.provider_name,
        "model": prepared.request_model,
        "model_entry": None if entry is None else entry.model_dump(mode="json", exclude_none=True),
        "model_findings": [finding.to_json() for finding in findings],
        "rows": {"in": scan.rows_in, "asked": scan.asked, "failed": scan.rows_in - scan.asked},
        "failures": scan.failures.to_json(),
        "requests": {
            "distinct": distinct,
            "shared": shared.requests,
            "reused": reused.requests,
            "in_flight": in_flight.requests,
            "to_send": to_send,
        },
        "savings": {
            "shared": _saved(prepared, basis, shared, processing),
            "reused": _saved(prepared, basis, reused, processing),
            "in_flight": _saved(prepared, basis, in_flight, processing),
        },
        "tokens": _tokens(load, basis, longest),
        "cost_usd": cost,
        "time": estimate_time(prepared.job, load),
        "batch": batch,
        "budget": budget,
        "route": route,
        "warnings": warnings,
    }


def _part(total: int, requests: int, of_requests: int) -> int:
    """Return the part of a total that so many of the requests have, as if all were alike; rounded up."""
    return -(-total * requests // max(of_requests, 1))


def _budget_warnings(budget: dict[str, Any] | None) -> list[str]:
    """Say what the budget would do to the run."""
    if budget is None:
        return []
    worst = budget["worst_case_usd"]
    if worst is None:
        return [f"budget.max_usd can't be held: {budget['unknown']}; run asks before it starts"]
    if budget["left_usd"] is None:
        return [f"of the budget, {unknown_words(budget['unknown_runs'])}; the next run counts the known costs alone"]
    if Decimal(worst) > Decimal(budget["left_usd"]):
        worst, left = money(worst), money(budget["left_usd"])
        holds = "the run holds what each request may cost at most, and may stop before the end"
        resumed = "what is answered stays, and a higher budget resumes it"
        return [f"the worst case, {worst}, is more than the {left} left of the budget: {holds}; {resumed}"]
    return []


def _model_findings(prepared: PreparedJob, longest: int) -> list[ModelFinding]:
    """Return what the job's owner should know about the model, the longest request's fit into its context included."""
    return judge_model(
        prepared.job,
        prepared.model_entry,
        has_schema=prepared.answer_schema is not None,
        max_output_tokens=prepared.max_output_tokens,
        longest_request_tokens=longest,
    )


def _load(prepared: PreparedJob, basis: Basis, share: _Share) -> Load:
    most = prepared.max_output_tokens
    return Load(
        share.requests,
        round(basis.scale.tokens(share.ruled_tokens, share.requests)),
        *output_range(most, share.requests),
        expected_output(basis.output_tokens, most, share.requests),
        basis.scale.error,
    )


def _tokens(load: Load, basis: Basis, longest: int) -> dict[str, Any]:
    return {
        "input": load.input_tokens,
        "input_low": load.input_low,
        "input_high": load.input_high,
        "output_low": load.output_low,
        "output_expected": load.output_expected,
        "output_high": load.output_high,
        "longest_input": round(basis.scale.tokens(longest)),
        "method": basis.scale.method,
        "error": basis.error,
        "output_method": basis.output_method,
    }


def _saved(prepared: PreparedJob, basis: Basis, share: _Share, processing: Processing) -> dict[str, Any]:
    load = _load(prepared, basis, share)
    cost = estimate_cost(prepared.provider_name, prepared.price_model, load, processing)
    return {
        "requests": share.requests,
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_expected,
        "usd": cost["expected"],
    }


def _take(requests: dict[bytes, int], ids: Iterable[str]) -> _Share:
    """Take these requests out of those that are left; return what they come to."""
    share = _Share()
    for request_id in ids:
        tokens = requests.pop(short_id(request_id), None)
        if tokens is not None:
            share.requests += 1
            share.ruled_tokens += tokens
    return share


def _settled(segments: list[str]) -> Iterable[str]:
    """Yield the requests that the ledger answers."""
    return (answer.request_id for path in segments for answer in read_answers(path) if answer.lane is Lane.MAIN)


def _in_flight(prepared: PreparedJob) -> Iterable[str]:
    """Yield the requests that wait in a batch of an earlier run."""
    return (member.request_id for key in list_in_flight(prepared) for member in read_members(prepared.ledger, key))


def _damaged_files(failures: Failures) -> str:
    shown = failures.examples.get((str(Stage.READ), str(FailureKind.DAMAGED_FILE)), [])
    return ", ".join(sorted({example["source"].rpartition(":")[0] for example in shown}))


def _warnings(prepared: PreparedJob, scan: Scan, cost: dict[str, Any], to_send: int) -> list[str]:
    job = prepared.job
    used = prepared.template.columns_used
    duplicates = scan.failures.counts[str(Stage.IDENTIFY), str(FailureKind.DUPLICATE_KEY)]
    lost = scan.rows_in - scan.asked
    share = lost / scan.rows_in if scan.rows_in else 0.0
    allowed = job.limits.max_dead_letter_ratio
    damaged = _damaged_files(scan.failures)
    billed = query_bytes(prepared.files[0])
    cases = [
        (
            billed is not None,
            f"the input's query read {billed or 0:,} bytes, which BigQuery bills; within a day the run gets it from its cache",
        ),
        (bool(damaged), f"{damaged} {_DAMAGE}"),
        (scan.rows_in == 0, "the input has no rows"),
        (used is not None and not used, "the template names no column: every row asks the same question"),
        (
            not job.input.key,
            "input.key names no column: rows are told apart by their content, so a changed row is a new row",
        ),
        (duplicates > 0, f"{duplicates:,} rows share a key and differ: all of them become dead letters"),
        (
            share > allowed,
            f"{share:.1%} of the rows fail before any call, more than limits.max_dead_letter_ratio ({allowed:.1%})",
        ),
        (
            prepared.max_output_tokens is None,
            "model.params.max_output_tokens is not set: an answer may be as long, and cost as much, as the model likes",
        ),
        (to_send > 0 and cost["low"] is None, f"the cost is unknown: {cost['unknown']}"),
    ]
    return [sentence for holds, sentence in cases if holds]
