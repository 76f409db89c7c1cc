"""A call in OpenTelemetry's words: span names and attributes of the GenAI conventions, ours under `rowbeam.`.

Source: open-telemetry/semantic-conventions-genai (all of it in development); names as in providers.md 12.1. What the
conventions lack, batches and money, has the prefix `rowbeam.`. Payloads are never among the attributes.
"""

import hashlib
from urllib.parse import urlsplit

from transforms.records.call import CallRecord, CallStatus, CallType

#: Histogram, seconds: how long a real-time call took, to the end of its response.
DURATION = "gen_ai.client.operation.duration"
#: Histogram, tokens: of each answer, by gen_ai.token.type.
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - no password
#: Counter, US dollars: what calls of known cost came to.
COST = "rowbeam.client.cost"
#: Counter: calls whose cost nobody knows.
UNKNOWN_COST = "rowbeam.client.unknown_cost"
#: Bucket boundaries that the conventions recommend.
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS = (
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
)  # fmt: skip

Attribute = str | int | float | bool | tuple[str, ...]


def run_span_ids(run_id: str) -> tuple[int, int]:
    """Return the trace id and the span id of a run's own span: every process can name it, none has to be told."""
    digest = hashlib.sha256(f"rowbeam/run/{run_id}".encode()).digest()
    return int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")


def server_attributes(base_url: str) -> dict[str, Attribute]:
    """Return server.address and server.port of an API's address; {} where it names no host."""
    parts = urlsplit(base_url)
    if not parts.hostname:
        return {}
    return {"server.address": parts.hostname, "server.port": parts.port or (80 if parts.scheme == "http" else 443)}


def span_name(record: CallRecord) -> str:
    """Return the span's name: the operation and its model; for an exchange of the batch API, what it was."""
    if record.call_type is CallType.LLM:
        return f"chat {record.request_model}"
    what, _, _ = (record.cost_reason or "batch exchange").partition(" of a batch")
    return f"batch {what}"


def metric_attributes(record: CallRecord, server: dict[str, Attribute]) -> dict[str, Attribute]:
    """Return the attributes of the call's measurements: few values each, never an id."""
    attributes: dict[str, Attribute] = {
        "gen_ai.provider.name": record.provider_name,
        "gen_ai.request.model": record.request_model,
        **server,
    }
    if record.call_type is CallType.LLM:
        attributes["gen_ai.operation.name"] = "chat"
    if record.response_model:
        attributes["gen_ai.response.model"] = record.response_model
    return attributes


def error_attributes(record: CallRecord) -> dict[str, Attribute]:
    """Return error.type of a call that did not succeed, else {}."""
    return {} if record.status is CallStatus.SUCCESS else {"error.type": str(record.kind)}


def span_attributes(record: CallRecord, common: dict[str, Attribute]) -> dict[str, Attribute]:
    """Return the attributes of a call's span, those of its measurements (`common`) included; the unknown are left out."""
    optional: dict[str, Attribute | None] = {
        "http.response.status_code": record.http_status,
        "gen_ai.response.finish_reasons": record.finish_reasons or None,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cache_read_input_tokens,
        "gen_ai.usage.cache_write.input_tokens": record.cache_write_input_tokens,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_output_tokens,
        "rowbeam.request_id": record.request_id,
        "rowbeam.lane": record.lane and str(record.lane),
        "rowbeam.batch.row.custom_id": record.custom_id,
        "rowbeam.provider_request_id": record.provider_request_id,
        "rowbeam.usage.cost": None if record.cost_usd is None else float(record.cost_usd),
    }
    return {
        **common,
        **error_attributes(record),
        "rowbeam.run_id": record.run_id,
        "rowbeam.call_id": record.call_id,
        "rowbeam.batch.id": record.batch_id,
        "rowbeam.attempt": record.attempt,
        "rowbeam.waited_ms": record.waited_ms,
        "rowbeam.usage.cost_source": str(record.cost_source),
        **{name: value for name, value in optional.items() if value is not None},
    }
