"""The plan's other half: what the provider's batch API would make of the same requests, and which way they would go."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.estimate import Load, estimate_cost
from pipelines.prepare import PreparedJob
from pipelines.text import plural
from transforms.records.batch import BatchLimits
from transforms.records.settings import BatchingSettings, ProviderName
from transforms.rules.route import choose_route, is_batch_allowed, shard_count

_DAY_S = 86_400
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class _Wait:
    """What a provider's documentation says of the time of one batch; seconds, None where it names none."""

    usual_s: int | None
    at_most_s: int | None
    says: str


#: providers.md 2.5, 3.4, 4.4, 5.3.
_WAITS: Mapping[ProviderName, _Wait] = {
    "openai": _Wait(None, _DAY_S, "at most 24 h: OpenAI then ends the batch and keeps what is done"),
    "azure_openai": _Wait(None, None, "24 h is Azure's target, and a batch that takes longer goes on"),
    "anthropic": _Wait(_HOUR_S, _DAY_S, "usually within 1 h, at most 24 h: Anthropic then ends the batch"),
    "openrouter": _Wait(None, None, "24 h is OpenRouter's window, and some models' hosts may take longer"),
}


def plan_batch(prepared: PreparedJob, load: Load, byte_count: int) -> dict[str, Any]:
    """Return what the provider's batch API would make of the requests, as JSON values with stable keys.

    Args:
        prepared: the job.
        load: the requests that are left to send.
        byte_count: of their lines in request files, estimated.

    Returns:
        available: the job can use a batch API; unavailable: else why not, or null.
        cost_usd: {low, expected, high, unknown}, as in real time, at batch prices.
        batches, max_requests: how many, and of how many requests at most; null without a batch API.
        time: {usual_s, at_most_s, says, deadline_s} or null: the provider's documented words on one batch, and
            after how many seconds the run gives a batch up (batching.deadline).
    """
    if prepared.batch_limits is None:
        return {
            "available": False,
            "unavailable": prepared.no_batch_reason,
            "cost_usd": {"low": None, "expected": None, "high": None, "unknown": prepared.no_batch_reason},
            "batches": None,
            "max_requests": None,
            "time": None,
        }
    wait = _WAITS[prepared.job.model.provider]
    return {
        "available": True,
        "unavailable": None,
        "cost_usd": estimate_cost(prepared.provider_name, prepared.price_model, load, "batch"),
        "batches": _batches(prepared.batch_limits, prepared.max_batch_requests, load.requests, byte_count),
        "max_requests": prepared.max_batch_requests,
        "time": {
            "usual_s": wait.usual_s,
            "at_most_s": wait.at_most_s,
            "says": wait.says,
            "deadline_s": prepared.batching.deadline,
        },
    }


def plan_route(prepared: PreparedJob, requests: int) -> dict[str, Any]:
    """Return which way a run would send that many requests: {"mode", "chosen", "why"}.

    mode: the job's batching.mode; chosen: real_time or batch; why: one clause.
    """
    batching, provider = prepared.batching, prepared.job.model.provider
    has_batch_api, is_allowed = prepared.batch_limits is not None, is_batch_allowed(batching, provider)
    chosen = choose_route(batching.mode, requests, batching.threshold, has_batch_api, is_allowed)
    if batching.mode != "auto":
        why: str | None = f"batching.mode is {batching.mode}"
    elif not has_batch_api:
        why = prepared.no_batch_reason
    elif not is_allowed:
        why = f"batching.allowed_providers leaves out {provider}"
    else:
        why = f"{plural(requests, 'request')}, and batching.threshold is {batching.threshold:,}"
    return {"mode": batching.mode, "chosen": chosen, "why": why}


def batch_warnings(batching: BatchingSettings, load: Load, batches: int) -> list[str]:
    """Return what makes batches wait for each other, which no provider's words on one batch tell."""
    found = []
    if batching.enqueued_tokens is not None and load.input_tokens > batching.enqueued_tokens:
        found.append(
            f"batching.enqueued_tokens lets {batching.enqueued_tokens:,} tokens wait at a time, and there are about "
            f"{load.input_tokens:,}: batches are held back until earlier ones end"
        )
    if batches > batching.batches_per_hour:
        found.append(
            f"batching.batches_per_hour is {batching.batches_per_hour:,}, and there are about {batches:,} batches: to "
            "submit them all takes hours"
        )
    return found


def _batches(limits: BatchLimits, max_requests: int, requests: int, byte_count: int) -> int:
    """Count batches as a run makes them: shares by request count, each cut where it has too many bytes."""
    if not requests:
        return 0
    shares = shard_count(requests, max_requests)
    return shares * max(1, -(-byte_count // (shares * limits.max_bytes)))
