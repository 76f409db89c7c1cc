"""What a run expects of its calls as it begins, from a sample of its rows, and how that compares with what came.

Both are for the record: the manifest and the summary keep them, and the next plan is calibrated on the run's calls.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from pipelines.estimate import Load, estimate_cost, expected_output, output_range
from pipelines.estimate_basis import SAMPLE, Basis, Sampled, find_basis, ruled_schema_tokens
from pipelines.plan_batch import plan_route
from pipelines.prepare import PreparedJob
from pipelines.row_sample import sample_rows
from transforms.records.errors import RowError
from transforms.records.failure import FailureKind
from transforms.rules.price import Processing
from transforms.rules.tokens import prompt_tokens

#: Failed calls that had an answer all the same, and its tokens.
_ANSWERED = (FailureKind.TRUNCATED, FailureKind.REFUSAL, FailureKind.CONTENT_FILTERED)
_MONEY = Context(prec=60, rounding=ROUND_HALF_EVEN)
_PLACES = Decimal(1).scaleb(-18)


def expect(prepared: PreparedJob) -> dict[str, Any]:
    """Return what the run expects of one request, as JSON values with stable keys (the manifest's "estimate").

    Takes a fraction of a second whatever the input's size: up to 500 rows are read and rendered, nothing is sent.

    Keys: requests_sampled, method, error, input_tokens_per_request, output_tokens_per_request {low, expected, high,
    method}, usd_per_request {low, expected, high, unknown}, processing. Dollars are text; null where `unknown` says
    why. processing is "real_time" or "batch", as the settings and the input's size let expect.
    """
    sample = _sample(prepared)
    basis = find_basis(prepared, sample)
    processing = _processing(prepared, len(sample))
    load = _load(prepared, sample, basis)
    cost = estimate_cost(prepared.provider_name, prepared.price_model, load, processing)
    if not sample:
        cost = {"low": None, "expected": None, "high": None, "unknown": "no row could be sampled"}
    elif processing == "batch" and cost["low"] is None and prepared.batch_limits is None:
        cost |= {"unknown": prepared.no_batch_reason}
    return {
        "requests_sampled": len(sample),
        "method": basis.scale.method,
        "error": basis.error,
        "input_tokens_per_request": _each(load.input_tokens, len(sample)),
        "output_tokens_per_request": {
            "low": _each(load.output_low, len(sample)),
            "expected": _each(load.output_expected, len(sample)),
            "high": prepared.max_output_tokens,
            "method": basis.output_method,
        },
        "usd_per_request": {
            "low": _usd_each(cost["low"], len(sample)),
            "expected": _usd_each(cost["expected"], len(sample)),
            "high": _usd_each(cost["high"], len(sample)),
            "unknown": cost["unknown"],
        },
        "processing": processing,
    }


def compare(estimate: Mapping[str, Any], calls: Mapping[str, Any]) -> dict[str, Any]:
    """Set an estimate beside what the run's calls came to (the summary's "estimate").

    Args:
        estimate: what `expect` returned.
        calls: the sums over the run's LLM calls, `CallTotals.to_json()`.

    Returns:
        requests (calls that had an answer, repairs included), method, input_tokens_per_request,
        output_tokens_per_request and usd_per_request, each {estimated, actual, error}; error is actual / estimated - 1
        with four places, null where either is unknown. usd_per_request also has unknown: why one of them is not known,
        or only in part. Dollars are text.
    """
    answered = calls["succeeded"] + sum(calls["failures"].get(str(kind), 0) for kind in _ANSWERED)
    estimated_usd = estimate["usd_per_request"]["expected"]
    actual_usd = _actual_usd(calls, answered)
    return {
        "requests": answered,
        "method": estimate["method"],
        "input_tokens_per_request": _compared(
            estimate["input_tokens_per_request"], _each(calls["input_tokens"] or None, answered)
        ),
        "output_tokens_per_request": _compared(
            estimate["output_tokens_per_request"]["expected"], _each(calls["output_tokens"] or None, answered)
        ),
        "usd_per_request": {
            "estimated": estimated_usd,
            "actual": actual_usd,
            "error": _error(estimated_usd, actual_usd),
            "unknown": _why_unknown(estimate, calls),
        },
    }


def _sample(prepared: PreparedJob) -> list[Sampled]:
    """Return the distinct requests of some rows."""
    schema_tokens = ruled_schema_tokens(prepared)
    found: dict[str, Sampled] = {}
    for row in sample_rows(prepared, SAMPLE):
        try:
            prompt = prepared.template.render(row.values).prompt
        except RowError:
            continue
        request_id = prepared.identity.request_id(prompt)
        found.setdefault(request_id, Sampled(request_id, prompt_tokens(prompt) + schema_tokens, prompt))
    return list(found.values())


def _load(prepared: PreparedJob, sample: list[Sampled], basis: Basis) -> Load:
    count, most = len(sample), prepared.max_output_tokens
    tokens = round(basis.scale.tokens(sum(one.ruled_tokens for one in sample), count))
    expected = expected_output(basis.output_tokens, most, count)
    return Load(count, tokens, *output_range(most, count), expected, basis.scale.error)


def _processing(prepared: PreparedJob, sampled: int) -> Processing:
    return "batch" if plan_route(prepared, sampled)["chosen"] == "batch" else "real_time"


def _each(total: int | None, requests: int) -> float | None:
    return None if total is None or not requests else round(total / requests, 1)


def _usd_each(total: str | None, requests: int) -> str | None:
    if total is None or not requests:
        return None
    usd = _MONEY.quantize(_MONEY.divide(Decimal(total), Decimal(requests)), _PLACES)
    return format(usd.normalize() if usd else Decimal(0), "f")


def _actual_usd(calls: Mapping[str, Any], answered: int) -> str | None:
    """Return dollars for each answer, of the calls whose cost is known; None when none is."""
    known = calls["unknown_cost"] < calls["sent"]
    return _usd_each(calls["cost_usd"], answered) if known else None


def _why_unknown(estimate: Mapping[str, Any], calls: Mapping[str, Any]) -> str | None:
    if not calls["unknown_cost"]:
        unknown: str | None = estimate["usd_per_request"]["unknown"]
        return unknown
    reasons = calls["cost_reasons"]
    reason = max(reasons, key=lambda name: reasons[name]) if reasons else "no reason given"
    return f"{calls['unknown_cost']} of {calls['sent']} calls have an unknown cost: {reason}"


def _compared(estimated: float | None, actual: float | None) -> dict[str, float | None]:
    return {"estimated": estimated, "actual": actual, "error": _error(estimated, actual)}


def _error(estimated: float | str | None, actual: float | str | None) -> float | None:
    if estimated is None or actual is None or not float(estimated):
        return None
    return round(float(actual) / float(estimated) - 1, 4)
