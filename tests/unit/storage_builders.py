"""Ledger records for the storage tests: valid by default, one thing changed per test."""

from decimal import Decimal
from typing import Any

from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallStatus, CallType, CostSource
from transforms.records.failure import FailureKind
from transforms.records.request import Lane

RUN = "20261121T053412-3f9a2c"


def make_call(index: int = 0, **changes: Any) -> CallRecord:
    """Return a call that succeeded."""
    values: dict[str, Any] = {
        "call_id": f"b1-{index:06d}",
        "run_id": RUN,
        "batch_id": "b1",
        "call_index": index,
        "call_type": CallType.LLM,
        "custom_id": f"c-{index}",
        "request_id": f"r-{index}",
        "root_request_id": f"r-{index}",
        "lane": Lane.MAIN,
        "attempt": 1,
        "status": CallStatus.SUCCESS,
        "kind": FailureKind.OK,
        "http_status": 200,
        "provider_request_id": "req_1",
        "started_at_us": 1_795_000_000_000_000 + index,
        "latency_ms": 512.25,
        "waited_ms": 0.5,
        "request_json": '{"messages": []}',
        "response_json": '{"choices": []}',
        "error_json": None,
        "provider_name": "openai",
        "request_model": "gpt-4o-mini",
        "response_model": "gpt-4o-mini-2024-07-18",
        "input_tokens": 100,
        "output_tokens": 20,
        "cache_read_input_tokens": 0,
        "cache_write_input_tokens": None,
        "reasoning_output_tokens": None,
        "finish_reasons": ("stop",),
        "cost_usd": Decimal("0.0000345"),
        "cost_source": CostSource.PRICE_TABLE,
        "cost_reason": None,
        "prompt_sha256": "a" * 64,
        "template_sha256": "b" * 64,
        "variables_sha256": "c" * 64,
        "lookup_sha256": None,
        "text": '{"label":"positive"}',
    }
    return CallRecord(**{**values, **changes})


def make_failed_call(index: int, kind: FailureKind, **changes: Any) -> CallRecord:
    """Return a call that ended otherwise, without a text."""
    error = f'{{"kind":"{kind}","message":"so it was"}}'
    return make_call(index, **{"status": CallStatus.ERROR, "kind": kind, "text": None, "error_json": error, **changes})


def make_opened(size: int = 3, batch_id: str = "b1") -> BatchOpened:
    """Return a batch of requests r-0, r-1, ..."""
    members = tuple((f"c-{n}", f"r-{n}") for n in range(size))
    return BatchOpened(
        batch_id, f"key-{batch_id}", RUN, "per_request", "openai", "gpt-4o-mini", 1_794_999_999_000_000, members
    )


def make_ended(batch_id: str = "b1", succeeded: int = 3) -> BatchEnded:
    """Return the end of that batch."""
    return BatchEnded(batch_id, RUN, "completed", 1_795_000_009_000_000, succeeded, 0, 0)
