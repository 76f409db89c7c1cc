"""The rows of OpenRouter's batches, their half price, and what a batch came to (providers.md 5.2, 5.3).

The docs leave open where a failed row says so: here half of them have a response with its status, half an error
(`error_type`) and no response.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from pipelines.sandbox.api_chat import ChatApi
from pipelines.sandbox.batch_engine import Desk
from pipelines.sandbox.batch_records import Batch, Part
from pipelines.sandbox.batch_rows import Order, RowAsked, RowEnd, RowProblem, RowResult, answer
from pipelines.sandbox.exchange import Completion, Refused
from pipelines.sandbox.provider_openrouter import OpenRouter
from pipelines.sandbox.routes import Route

_COUNTED = ("prompt_tokens", "completion_tokens", "total_tokens")
#: Costs are whole multiples of this part of a dollar, so that sums come out to the last digit.
_PER_USD = 2 * 10**8
#: So many rows are added up before others have a turn.
_SLICE = 200


class _InBatches(OpenRouter):
    """How OpenRouter talks inside a batch."""

    def dress(self, body: dict[str, Any], completion: Completion) -> dict[str, Any]:
        """Charge half."""
        body = super().dress(body, completion)
        if "id" in body:
            body["id"] = f"gen-batch-{completion.created}-{completion.id[:20]}"
        usage = body.get("usage")
        if usage and usage["cost"]:
            usage["cost"] /= 2
            usage["cost_details"] = {name: cost and cost / 2 for name, cost in usage["cost_details"].items()}
        return body


#: OpenRouter as it talks about batches and inside them.
HOUSE = _InBatches()


class OpenRouterDialect:
    """Rows of OpenRouter's batches: `{"custom_id", "body"}` and `{"id", "custom_id", "response", "error"}`; see `Dialect`."""

    provider = "openrouter"
    rejects_bad_rows = True
    expires = True
    one_model = True

    _route = Route(HOUSE, ChatApi(is_strict=False))

    def read_row(self, line: bytes, order: Order) -> RowAsked | RowProblem:
        """Read a row; the batch's model goes into a body that names none."""
        row = orjson.loads(line)
        custom_id, body = row.get("custom_id"), row.get("body")
        if not isinstance(custom_id, str) or not custom_id:
            return RowProblem("invalid_request", "custom_id: must be a non-empty string", "custom_id")
        if not isinstance(body, dict):
            return RowProblem("invalid_request", f"request {custom_id}: body must be an object", "body")
        if body.get("model", order.model) != order.model:
            text = f"request {custom_id}: body.model must match the batch's model {order.model} or be left out"
            return RowProblem("invalid_request", text, "body.model")
        return RowAsked(custom_id, self._route, "/api/v1/chat/completions", {**body, "model": order.model})

    def row_problem(self, refused: Refused) -> RowProblem:
        """Put what real time would refuse into words."""
        _, body = HOUSE.refuse(refused, "")
        return RowProblem(body["error"]["metadata"]["error_type"], body["error"]["message"], refused.param)

    def write_row(self, result: RowResult, order: Order) -> bytes:  # noqa: ARG002
        """Return one element of `results`: with a response or with an error, never with both."""
        response, error = None, None
        if result.end is not RowEnd.ANSWERED:
            error = _unfinished(result.end)
        elif result.body and result.status != 200 and int(result.id, 16) % 2:
            error = _row_error(result.body)
        else:
            response = {"status_code": result.status, "request_id": f"req_{result.id}", "body": result.body}
        line = {
            "id": f"batch_req_{result.id}",
            "custom_id": result.custom_id,
            "response": response,
            "error": error,
        }
        return orjson.dumps(line)


def _unfinished(end: RowEnd) -> dict[str, Any]:
    if end is RowEnd.EXPIRED:
        text = "This request could not be executed before the completion window expired."
        return {"message": text, "type": "batch_expired", "param": None}
    return {"message": "This request was not executed.", "type": "batch_cancelled", "param": None}


def _row_error(body: Mapping[str, Any]) -> dict[str, Any]:
    error = body["error"]
    kind = error["metadata"]["error_type"]
    return {"message": error["message"], "type": kind, "param": None, "error_type": kind}


DIALECT = OpenRouterDialect()


class ElementsDesk(Desk):
    """The same desk, for results inside an array, where half a line would spoil all: a broken line is an odd object."""

    def __init__(self, desk: Desk) -> None:
        # One state, two ways to look at it.
        self.__dict__ = desk.__dict__

    def results(self, batch: Batch, part: Part) -> Iterator[bytes]:
        """Yield the result lines; what is no JSON as a text in an object that names no request."""
        for line in super().results(batch, part):
            yield line if _is_json(line) else orjson.dumps({"broken": line.decode(errors="replace")})


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True


async def batch_usage(desk: Desk, batch: Batch) -> dict[str, Any] | None:
    """Return tokens and cost of a batch that has ended, summed over the rows that are on the bill; None before the end.

    It is found out once, and kept in `order.extra["kept"]`.
    """
    kept: dict[str, Any] = batch.order.extra["kept"]
    if not desk.view(batch).has_ended or batch.run is None:
        return None
    if "usage" not in kept:
        totals, cost = dict.fromkeys(_COUNTED, 0), 0
        for number, usage in enumerate(_billed(desk, batch), 1):
            for name in _COUNTED:
                totals[name] += usage[name]
            cost += round(usage["cost"] * _PER_USD)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        kept["usage"] = {**totals, "cost": cost / _PER_USD, "is_byok": False}
    usage_in_all: dict[str, Any] = kept["usage"]
    return usage_in_all


def _billed(desk: Desk, batch: Batch) -> Iterator[dict[str, Any]]:
    """Yield the usage of each row that is paid for."""
    if batch.run is None:
        return
    rows, view = batch.run.rows, desk.view(batch)
    for row in batch.run.billed(view.completed + view.failed):
        asked = DIALECT.read_row(rows.line(row, batch.spool), batch.order)
        if isinstance(asked, RowAsked):
            yield answer(desk.rehearsal, asked, batch.order, rows, row)[1]["usage"]
