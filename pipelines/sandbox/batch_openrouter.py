"""OpenRouter's batches: rows inline, results in the status reply, no cancel (providers.md 5.3).

Checked at the create: the JSON, the order of its keys, the number of rows, endpoint and model. Rows are looked at
afterwards, and one bad row fails the whole batch. Chat completions only; `callback_url` is taken and never called.
Finished batches are withheld (402) from the key `no-credit`, as by the fault `withheld`; deleted ones are 410.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import orjson
from aiohttp import web

from pipelines.sandbox.batch_clock import BatchStatus
from pipelines.sandbox.batch_http import BatchCall, BatchRoute
from pipelines.sandbox.batch_intake import Intake, take_rows
from pipelines.sandbox.batch_openrouter_rows import DIALECT, HOUSE, ElementsDesk, batch_usage
from pipelines.sandbox.batch_records import Batch, BatchView, Part
from pipelines.sandbox.batch_rows import Order
from pipelines.sandbox.exchange import NO_SUCH_MODEL, Problem, Refused
from pipelines.sandbox.rehearsal import NO_CREDIT_KEY

_MOST_ROWS, _MOST_BYTES = 5_000, 200_000_000
_MOST_LISTED, _LISTED = 100, 20
_ENDPOINT = "/v1/chat/completions"
_WINDOW = "24h"
_BEFORE_ROWS = ("endpoint", "model", "provider", "callback_url")
_KNOWN = frozenset({*_BEFORE_ROWS, "completion_window", "requests"})
_ROUTING = frozenset({"only", "allow_fallbacks"})
#: `finalizing` and `cancelling` are not accepted as filters.
_FILTERS = frozenset({"validating", "in_progress", "completed", "failed", "expired", "cancelled"})


async def _create(call: BatchCall) -> web.StreamResponse:
    intake = await take_rows(call, _MOST_BYTES, lambda _number, _row: "")

    async def accept() -> Batch | web.Response:
        refusal = _create_refusal(call, intake)
        if refusal:
            return refusal
        around = intake.around
        extra: dict[str, Any] = {"total": intake.count, "provider": around.get("provider"), "kept": {}}
        order = Order(endpoint=around["endpoint"], model=around["model"], extra=extra)
        return call.desk.accept(DIALECT, intake.spool, order, "batch_")

    return await call.create(accept, partial(_shown, call), 202)


def _create_refusal(call: BatchCall, intake: Intake) -> web.Response | None:
    if intake.size > _MOST_BYTES:
        return _error(call, 413, "payload_too_large", f"The body is larger than {_MOST_BYTES} bytes")
    if intake.unreadable:
        return call.refuse(Problem.INVALID, f"Invalid JSON: {intake.unreadable}")
    objection = key_objection(intake.around) or _value_objection(intake.around) or _count_objection(intake.count)
    if objection:
        return call.refuse(Problem.INVALID, objection)
    if intake.around["model"] == NO_SUCH_MODEL:
        status, body = call.house.refuse(Refused(Problem.NO_SUCH_MODEL, model=NO_SUCH_MODEL), call.exchange_id)
        return call.json(body, status)
    return None


def key_objection(around: Mapping[str, Any]) -> str:
    """Return what is wrong with the keys of a create or with their order, or "": all settings come before `requests`."""
    names = list(around)
    missing = [name for name in ("endpoint", "model", "requests") if name not in around]
    if missing:
        return f"{missing[0]}: Required"
    unknown = sorted(around.keys() - _KNOWN)
    if unknown:
        return f"Unrecognized key: {unknown[0]}"
    late = [name for name in names[names.index("requests") :] if name in _BEFORE_ROWS]
    return f"{late[0]}: must be serialized before requests" if late else ""


def _value_objection(around: Mapping[str, Any]) -> str:
    routing, callback_url = around.get("provider"), around.get("callback_url")
    if around["endpoint"] != _ENDPOINT:
        return f"endpoint: the rehearsal provider takes only {_ENDPOINT}"
    if not isinstance(around["model"], str) or not around["model"]:
        return "model: must be a model slug"
    if around.get("completion_window", _WINDOW) != _WINDOW:
        return f"completion_window: must be {_WINDOW}"
    if routing is not None and not (isinstance(routing, dict) and routing.keys() <= _ROUTING):
        return f"provider: must be an object with no other keys than {', '.join(sorted(_ROUTING))}"
    if callback_url is not None and not str(callback_url).startswith("https://"):
        return "callback_url: must be an HTTPS URL"
    return ""


def _count_objection(count: int) -> str:
    if not count:
        return "requests: must not be empty"
    return f"requests: must be at most {_MOST_ROWS}, not {count}" if count > _MOST_ROWS else ""


def _shown(call: BatchCall, batch: Batch) -> dict[str, Any]:
    """Return the batch without usage and results; a failed one counts nothing, since nothing of it was run."""
    view = call.desk.view(batch)
    is_failed = view.status is BatchStatus.REJECTED
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.order.endpoint,
        "model": batch.order.model,
        "provider": batch.order.extra["provider"],
        "status": _word(view),
        "completion_window": _WINDOW,
        "created_at": int(batch.created_s),
        "expires_at": int(batch.expires_s),
        "finalized_at": int(view.times[view.status]) if view.has_ended else None,
        "request_counts": {
            "total": 0 if is_failed else batch.order.extra["total"],
            "completed": view.completed,
            "failed": view.failed,
        },
        "usage": None,
        "error": {"message": _reason(batch)} if is_failed else None,
        "results": None,
    }


def _word(view: BatchView) -> str:
    return "failed" if view.status is BatchStatus.REJECTED else str(view.status)


def _reason(batch: Batch) -> str:
    problem = batch.problems[0]
    where = f"line {problem.line}: " if problem.line else ""
    return f"{problem.code}: {where}{problem.message}"


async def _status(call: BatchCall) -> web.StreamResponse:
    if call.takes("status_error"):
        return call.refuse(Problem.OVERLOADED)
    batch = _find(call)
    if batch is None:
        return call.refuse(Problem.NO_SUCH_THING, call.ident)
    if batch.is_deleted or call.desk.faults.plan.gone:
        return _error(call, 410, "not_found", "The results of this batch have been deleted")
    view = call.desk.view(batch)
    word = call.status_word(_word(view))
    shown = _shown(call, batch) | {"status": word, "usage": await batch_usage(call.desk, batch)}
    if shown["usage"] is None or word != _word(view):
        return call.json(shown)
    if call.house.key(call.request.headers) == NO_CREDIT_KEY or call.takes("withheld"):
        message = "Insufficient credits to settle this batch. Add credits and retrieve it again."
        return call.json(shown | {"error": {"code": 402, "message": message}}, 402)
    head = orjson.dumps(shown).removesuffix(b"null}") + b"["
    whole = replace(call, desk=ElementsDesk(call.desk))
    return await whole.results(batch, Part.ALL, "application/json", head=head, between=b",", tail=b"]}")


def _find(call: BatchCall) -> Batch | None:
    """Return the batch that the path names, deleted ones included."""
    mine = (batch for batch in call.desk.accepted() if batch.provider == "openrouter")
    return next((batch for batch in mine if batch.id == call.ident), None)


async def _list(call: BatchCall) -> web.StreamResponse:
    args, batches = call.args(), call.desk.batches("openrouter")
    objection = _list_objection(call, args, {batch.id for batch in batches})
    if objection:
        return call.refuse(Problem.INVALID, objection)
    if "after" in args:
        place = next(place for place, batch in enumerate(batches) if batch.id == args["after"])
        batches = batches[place + 1 :]
    wanted = [batch for batch in batches if _is_wanted(call, batch, args)]
    page = wanted[: int(args.get("limit", _LISTED))]
    data = [_shown(call, batch) | {"usage": await batch_usage(call.desk, batch)} for batch in page]
    first_id, last_id = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    has_more = len(wanted) > len(page)
    return call.json({"object": "list", "data": data, "first_id": first_id, "last_id": last_id, "has_more": has_more})


def _list_objection(call: BatchCall, args: Mapping[str, str], ids: set[str]) -> str:
    limit = args.get("limit", "1")
    if not limit.isdecimal() or not 1 <= int(limit) <= _MOST_LISTED:
        return f"limit: must be between 1 and {_MOST_LISTED}"
    if args.get("after") not in {None, *ids}:
        return f"after: no batch with id {args['after']!r}"
    strange = sorted(_statuses(call) - _FILTERS)
    if strange:
        return f"status: {strange[0]!r} is none of {', '.join(sorted(_FILTERS))}"
    for name in ("created_after", "created_before"):
        try:
            _time_s(args.get(name, "2026-01-01"))
        except ValueError:
            return f"{name}: must be an RFC 3339 time or a date"
    return ""


def _is_wanted(call: BatchCall, batch: Batch, args: Mapping[str, str]) -> bool:
    statuses, created_s = _statuses(call), batch.created_s
    if statuses and _word(call.desk.view(batch)) not in statuses:
        return False
    if "created_after" in args and created_s <= _time_s(args["created_after"]):
        return False
    return "created_before" not in args or created_s < _time_s(args["created_before"])


def _statuses(call: BatchCall) -> set[str]:
    """Return the statuses that are asked for; the parameter may be repeated."""
    return set(parse_qs(call.query).get("status", ()))


def _time_s(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


async def _delete(call: BatchCall) -> web.StreamResponse:
    batch = call.desk.batch("openrouter", call.ident)
    if batch is None:
        return call.refuse(Problem.NO_SUCH_THING, call.ident)
    if not call.desk.view(batch).has_ended:
        return _error(call, 409, "precondition_failed", "Only batches in a terminal status can be deleted")
    call.desk.delete_batch(batch)
    return call.json({"id": batch.id, "object": "batch", "deleted": True})


def _error(call: BatchCall, status: int, kind: str, message: str) -> web.Response:
    return call.json({"error": {"code": status, "message": message, "metadata": {"error_type": kind}}}, status)


_ALL = re.compile("/api/v1/batches")
_ONE = re.compile("/api/v1/batches/(?P<id>[^/]+)")

ROUTES = (
    BatchRoute("POST", _ALL, HOUSE, _create, "create_begun"),
    BatchRoute("GET", _ALL, HOUSE, _list, "listed"),
    BatchRoute("GET", _ONE, HOUSE, _status, "status"),
    BatchRoute("DELETE", _ONE, HOUSE, _delete),
)
