"""Ends of requests, for the stages that bring them to their rows."""

from decimal import Decimal
from typing import Any

from tests.stages.harness import SCHEMA, asked_row, request_id
from transforms.records.answer import PendingRequest, RequestResult
from transforms.records.failure import FailureKind, Stage
from transforms.records.usage import Usage
from transforms.rules.answer_columns import AnswerColumns
from transforms.rules.prompt import PromptTemplate

TEMPLATE = PromptTemplate(None, "{{ row.text }}")


def make_columns(*, keep: bool = False) -> AnswerColumns:
    """Return the columns of an answer `mood`."""
    return AnswerColumns("mood", SCHEMA, TEMPLATE, keep=keep)


def make_result(name: str, **changes: Any) -> RequestResult:
    """Return a checked answer that one row waits for."""
    values: dict[str, Any] = {
        "request_id": request_id(name),
        "value_json": '{"label":"positive"}',
        "kind": FailureKind.OK,
        "stage": None,
        "reason": None,
        "attempts": 1,
        "call_id": f"call-{name}",
        "run_id": "r1",
        "reused": False,
        "response_model": "m",
        "usage": Usage(10, 2),
        "cost_usd": Decimal("0.1"),
        "repaired": False,
        "riders": (asked_row(f"row-{name}"),),
    }
    return RequestResult(**{**values, **changes})


def make_failed(name: str, kind: FailureKind = FailureKind.TIMEOUT, **changes: Any) -> RequestResult:
    """Return a request's failure."""
    return make_result(name, value_json=None, kind=kind, stage=Stage.CALL, reason="no reply", **changes)


def make_pending(name: str, **changes: Any) -> PendingRequest:
    """Return a request that was left unsent."""
    values: dict[str, Any] = {"riders": (asked_row(f"row-{name}"),), **changes}
    return PendingRequest(request_id(name), "no money", FailureKind.QUOTA_EXHAUSTED, **values)
