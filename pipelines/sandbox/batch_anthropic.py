"""Anthropic's Message Batches: rows inline, no live counts, results as a stream of lines (providers.md 4.4).

Checked at the create: the JSON, the number of rows, their custom ids. `params` are looked at afterwards, as with the
real one: a row with a fault in it is answered with its error. With the key `no-credit-later` the money ends after the
create, which shows as it does there: in rows errored with invalid_request_error.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from pipelines.sandbox.api_messages import MessagesApi
from pipelines.sandbox.batch_clock import BatchStatus
from pipelines.sandbox.batch_http import BatchCall, BatchRoute
from pipelines.sandbox.batch_intake import Intake, take_rows
from pipelines.sandbox.batch_records import Batch, BatchView, Part
from pipelines.sandbox.batch_rows import Order, RowAsked, RowEnd, RowProblem, RowResult
from pipelines.sandbox.exchange import Completion, Problem, Refused
from pipelines.sandbox.provider_anthropic import Anthropic
from pipelines.sandbox.routes import Route

LATE_NO_CREDIT_KEY = "no-credit-later"

_MOST_ROWS, _MOST_BYTES = 100_000, 256_000_000
_MOST_LISTED, _LISTED = 1000, 20
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_VERSION = "anthropic-version"
#: What real time may know and batches don't.
_NOT_IN_BATCHES = ("speed", "store", "previous_thread_event_id", "cache_hint", "context_hint")
_UNFINISHED = {BatchStatus.EXPIRED: "expired", BatchStatus.CANCELLED: "canceled"}
_LOST_ERROR = {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}, "request_id": None}


class _InBatches(Anthropic):
    """How Anthropic talks inside a batch."""

    def objection(self, headers: Mapping[str, str], query: str, body: Mapping[str, Any]) -> Refused | None:
        """Object also to what batches do not know."""
        for name in _NOT_IN_BATCHES:
            if name in body:
                return Refused(Problem.INVALID, f"{name}: is not supported in batches")
        return super().objection(headers, query, body)

    def dress(self, body: dict[str, Any], completion: Completion) -> dict[str, Any]:
        """Say that it was a batch."""
        body = super().dress(body, completion)
        body["usage"]["service_tier"] = "batch"
        return body


class _WithoutCredit(_InBatches):
    """The same with no money left."""

    def objection(self, headers: Mapping[str, str], query: str, body: Mapping[str, Any]) -> Refused | None:  # noqa: ARG002
        """Object to everything."""
        return Refused(Problem.NO_CREDIT)


class AnthropicDialect:
    """Rows of Message Batches: `{"custom_id", "params"}` and `{"custom_id", "result"}`; see `Dialect`."""

    provider = "anthropic"
    rejects_bad_rows = False
    expires = True
    one_model = False

    _route = Route(_InBatches(), MessagesApi())
    _poor_route = Route(_WithoutCredit(), MessagesApi())

    def read_row(self, line: bytes, order: Order) -> RowAsked | RowProblem:
        """Read a row; the create has let only good ones in."""
        row = orjson.loads(line)
        route = self._poor_route if order.extra["is_poor"] else self._route
        return RowAsked(row["custom_id"], route, "/v1/messages", row["params"])

    def row_problem(self, refused: Refused) -> RowProblem:
        """Put a refusal into words; never shown, since bad rows reject nothing."""
        return RowProblem("invalid_request_error", refused.message)

    def write_row(self, result: RowResult, order: Order) -> bytes:  # noqa: ARG002
        """Return one of the four results: succeeded, errored (two levels deep), canceled, expired."""
        if result.end is RowEnd.EXPIRED:
            shown: dict[str, Any] = {"type": "expired"}
        elif result.end is RowEnd.CANCELLED:
            shown = {"type": "canceled"}
        elif result.status == 200:
            shown = {"type": "succeeded", "message": result.body}
        else:
            shown = {"type": "errored", "error": result.body or _LOST_ERROR}
        return orjson.dumps({"custom_id": result.custom_id, "result": shown})


_DIALECT = AnthropicDialect()


def rfc3339(seconds: float | None) -> str | None:
    """Return Unix seconds as Anthropic writes times, or None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def request_counts(view: BatchView, total: int, *, has_ended: bool) -> dict[str, int]:
    """Return the five counters: all rows are `processing` until the batch has ended, and none is after it."""
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    if not has_ended:
        return counts | {"processing": total}
    counts |= {"succeeded": view.completed, "errored": view.failed}
    return counts | {_UNFINISHED.get(view.status, "expired"): view.unfinished}


def objection_to_rows() -> Callable[[int, dict[str, Any]], str]:
    """Return a check of the rows of one create, to be called for each in turn; it says what is wrong, or ""."""
    seen: set[str] = set()

    def objection(number: int, row: dict[str, Any]) -> str:
        custom_id, where = row.get("custom_id"), f"requests.{number}"
        if not isinstance(custom_id, str):
            return f"{where}.custom_id: Field required"
        if not _CUSTOM_ID.fullmatch(custom_id):
            return f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
        if custom_id in seen:
            return f"{where}.custom_id: must be unique within the batch; {custom_id} came before"
        seen.add(custom_id)
        if not isinstance(row.get("params"), dict):
            return f"{where}.params: Field required"
        extra = sorted(row.keys() - {"custom_id", "params"})
        return f"{where}.{extra[0]}: Extra inputs are not permitted" if extra else ""

    return objection


async def _create(call: BatchCall) -> web.StreamResponse:
    intake = await take_rows(call, _MOST_BYTES, objection_to_rows())
    headers = call.request.headers
    is_poor = call.house.key(headers) == LATE_NO_CREDIT_KEY

    async def accept() -> Batch | web.Response:
        refusal = _create_refusal(call, intake)
        if refusal:
            return refusal
        extra = {"total": intake.count, "is_poor": is_poor}
        order = Order(endpoint="/v1/messages", headers={_VERSION: headers[_VERSION]}, extra=extra)
        return call.desk.accept(_DIALECT, intake.spool, order, "msgbatch_")

    return await call.create(accept, partial(_shown, call))


def _create_refusal(call: BatchCall, intake: Intake) -> web.Response | None:
    if intake.size > _MOST_BYTES:
        error = {"type": "request_too_large", "message": "Request exceeds the maximum allowed number of bytes."}
        return call.json({"type": "error", "error": error, "request_id": f"req_{call.exchange_id}"}, 413)
    message = intake.unreadable or intake.objection
    extra = sorted(intake.around.keys() - {"requests"})
    if not message and extra:
        message = f"{extra[0]}: Extra inputs are not permitted"
    elif not message and "requests" not in intake.around:
        message = "requests: Field required"
    elif not message and not intake.count:
        message = "requests: List should have at least 1 item after validation, not 0"
    elif not message and intake.count > _MOST_ROWS:
        message = f"requests: List should have at most {_MOST_ROWS} items after validation, not {intake.count}"
    return call.refuse(Problem.INVALID, message) if message else None


def _shown(call: BatchCall, batch: Batch) -> dict[str, Any]:
    view = call.desk.view(batch)
    has_ended = _has_ended(view, batch)
    status = "in_progress" if batch.cancel_s is None else "canceling"
    path = f"/v1/messages/batches/{batch.id}/results"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if has_ended else status,
        "request_counts": request_counts(view, batch.order.extra["total"], has_ended=has_ended),
        "ended_at": rfc3339(view.times[view.status]) if has_ended else None,
        "created_at": rfc3339(batch.created_s),
        "expires_at": rfc3339(batch.expires_s),
        "archived_at": None,
        "cancel_initiated_at": rfc3339(batch.cancel_s),
        "results_url": f"{call.request.scheme}://{call.request.host}{path}" if has_ended else None,
    }


def _has_ended(view: BatchView, batch: Batch) -> bool:
    """Tell whether every row has its result: a batch cancelled at once may still be looking at its rows."""
    return view.has_ended and batch.run is not None


async def _status(call: BatchCall) -> web.StreamResponse:
    batch = call.desk.batch("anthropic", call.ident)
    trouble = call.status_trouble(batch)
    if trouble or batch is None:
        return trouble or _unknown(call)
    shown = _shown(call, batch)
    return call.json(shown | {"processing_status": call.status_word(shown["processing_status"])})


async def _list(call: BatchCall) -> web.StreamResponse:
    args, batches = call.args(), call.desk.batches("anthropic")
    limit = args.get("limit", str(_LISTED))
    if not limit.isdecimal() or not 1 <= int(limit) <= _MOST_LISTED:
        return call.refuse(Problem.INVALID, f"limit: Input should be between 1 and {_MOST_LISTED}")
    places = {batch.id: place for place, batch in enumerate(batches)}
    for name in ("after_id", "before_id"):
        if name in args and args[name] not in places:
            return call.refuse(Problem.INVALID, f"{name}: no batch with id {args[name]!r}")
    if "before_id" in args:
        end = places[args["before_id"]]
        start = max(0, end - int(limit))
        has_more = start > 0
    else:
        start = places[args["after_id"]] + 1 if "after_id" in args else 0
        end = start + int(limit)
        has_more = end < len(batches)
    data = [_shown(call, batch) for batch in batches[start:end]]
    first_id, last_id = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return call.json({"data": data, "has_more": has_more, "first_id": first_id, "last_id": last_id})


async def _cancel(call: BatchCall) -> web.StreamResponse:
    batch = call.desk.batch("anthropic", call.ident)
    if batch is None:
        return _unknown(call)
    if call.desk.view(batch).has_ended:
        return call.refuse(Problem.INVALID, f"Batch {batch.id} cannot be canceled because it has already ended.")
    # While results are being put together this changes nothing: they can't be interrupted any more.
    call.desk.cancel(batch)
    return call.json(_shown(call, batch))


async def _delete(call: BatchCall) -> web.StreamResponse:
    batch = call.desk.batch("anthropic", call.ident)
    if batch is None:
        return _unknown(call)
    if not _has_ended(call.desk.view(batch), batch):
        return call.refuse(Problem.INVALID, f"Batch {batch.id} cannot be deleted while it is processing; cancel it.")
    call.desk.delete_batch(batch)
    return call.json({"id": batch.id, "type": "message_batch_deleted"})


async def _results(call: BatchCall) -> web.StreamResponse:
    batch = call.desk.batch("anthropic", call.ident)
    if batch is None:
        return _unknown(call)
    if not _has_ended(call.desk.view(batch), batch):
        return call.refuse(Problem.INVALID, f"Batch {batch.id} has no results before its processing has ended.")
    return await call.results(batch, Part.ALL, "application/x-jsonl")


def _unknown(call: BatchCall) -> web.Response:
    return call.refuse(Problem.NO_SUCH_THING, f"No batch found with id '{call.ident}'.")


_HOUSE = Anthropic()
_ALL = re.compile("/v1/messages/batches")
_ONE = re.compile("/v1/messages/batches/(?P<id>[^/]+)")
_CANCEL = re.compile("/v1/messages/batches/(?P<id>[^/]+)/cancel")
_RESULTS = re.compile("/v1/messages/batches/(?P<id>[^/]+)/results")

ROUTES = (
    BatchRoute("POST", _ALL, _HOUSE, _create, "create_begun"),
    BatchRoute("GET", _ALL, _HOUSE, _list, "listed"),
    BatchRoute("GET", _ONE, _HOUSE, _status, "status"),
    BatchRoute("DELETE", _ONE, _HOUSE, _delete),
    BatchRoute("POST", _CANCEL, _HOUSE, _cancel),
    BatchRoute("GET", _RESULTS, _HOUSE, _results),
)
