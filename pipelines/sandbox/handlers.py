"""The HTTP side: reads a request, asks the rehearsal, waits, replies, and keeps the bill."""

import asyncio
import secrets
from hashlib import sha256
from typing import Any, Final

import orjson
from aiohttp import web

from pipelines.sandbox.batch_bill import batch_summary
from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.batch_door import BatchDoor
from pipelines.sandbox.batch_engine import Desk
from pipelines.sandbox.batch_routes import BATCH_ROUTES
from pipelines.sandbox.bill import Bill, BillEntry
from pipelines.sandbox.breaking import close_inside, reset
from pipelines.sandbox.exchange import Finish, House, Problem, Refused
from pipelines.sandbox.faults import FaultKind, plan_from
from pipelines.sandbox.provider_openrouter import key_info
from pipelines.sandbox.rehearsal import BAD_KEY, NO_CREDIT_KEY, Admitted, Rehearsal, TurnedAway
from pipelines.sandbox.routes import Route, find_route
from pipelines.sandbox.stats import Stats

_BAD_GATEWAY: Final = b"<html><head><title>502 Bad Gateway</title></head><body><center>502</center></body></html>\n"
#: 200s without an answer are not paid for (providers.md 5.2, "zero-completion insurance").
_UNPAID = frozenset({Finish.EMPTY, Finish.ERROR})
_JSON: Final = "application/json"
_CONTROLS: Final = "GET bill, GET stats, GET events, POST release, POST reset, POST faults"


class Handlers:
    """The request handler of one sandbox. One event loop, no threads.

    Args:
        rehearsal: decides.
        bill: is kept.
        latency_s, jitter_s: how long an answer takes.
        timing: how long batches take.
    """

    def __init__(
        self, rehearsal: Rehearsal, bill: Bill, latency_s: float, jitter_s: float, timing: BatchTiming
    ) -> None:
        self.rehearsal = rehearsal
        self.bill = bill
        self.stats = Stats()
        self._latency_s = latency_s
        self._jitter_s = jitter_s
        self._run = secrets.token_hex(4)
        self._exchanges = 0
        self.desk = Desk(rehearsal, timing, bill.note_batch)
        self._batch_door = BatchDoor(BATCH_ROUTES, self.desk, self.stats, self._exchange_id)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request: a question, a list, or one of the sandbox's own pages."""
        path, _, query = request.raw_path.partition("?")
        if path.startswith("/_sandbox/"):
            return await self._control(request, path, query)
        batch_route = self._batch_door.find(request.method, path)
        if batch_route:
            return await self._batch_door.serve(request, batch_route, path, query)
        has_version = "anthropic-version" in request.headers
        route = find_route(request.method, path, has_anthropic_version=has_version)
        if route.what != "question":
            return self._list(route, request, path, query)
        self.stats.question_begins()
        try:
            return await self._question(request, route, path, query)
        finally:
            self.stats.question_ends()

    async def _question(self, request: web.BaseRequest, route: Route, path: str, query: str) -> web.StreamResponse:
        raw = await request.read()
        house = route.house
        if self.rehearsal.decider.plan.dead:
            return self._refuse(house, TurnedAway(Refused(Problem.OVERLOADED), {}, "dead"))
        judged = self.rehearsal.judge(route, path, query, request.headers, raw)
        if isinstance(judged, TurnedAway):
            return self._refuse(house, judged)
        if judged.fault:
            self.stats.faults[judged.fault] += 1
        if judged.fault is FaultKind.BAD_GATEWAY:
            return self._reply(502, _BAD_GATEWAY, {"Content-Type": "text/html"})
        refused = self.rehearsal.prompt_refusal(house, judged)
        if refused:
            return self._refuse(house, TurnedAway(refused, {}))
        return await self._answer(request, route, path, raw, judged)

    async def _answer(
        self, request: web.BaseRequest, route: Route, path: str, raw: bytes, admitted: Admitted
    ) -> web.StreamResponse:
        try:
            completion = self.rehearsal.complete(admitted)
        except ValueError as error:
            return self._refuse(route.house, TurnedAway(Refused(Problem.INVALID, f"Invalid schema: {error}"), {}))
        entry = None
        if completion.finish not in _UNPAID:
            entry = self.bill.accept(
                path=path,
                body_sha256=sha256(raw).hexdigest(),
                request_hash=admitted.request_hash.hex(),
                model=admitted.ask.model,
                attempt=admitted.attempt,
                tokens=(completion.input_tokens, completion.output_tokens),
                fault=admitted.fault,
            )
        try:
            wait_s = self.rehearsal.latency_s(admitted, self._latency_s, self._jitter_s)
            if wait_s:
                await asyncio.sleep(wait_s)
            assert route.api is not None  # noqa: S101 - a question has a format
            body = orjson.dumps(route.house.dress(route.api.reply(completion), completion))
            return await self._deliver(request, route.house, body, admitted, entry)
        except asyncio.CancelledError:
            self._drop(entry)
            raise
        except ConnectionError:
            # The client has gone; aiohttp finds that out again when it tries to send this.
            self._drop(entry)
            return web.Response()

    async def _deliver(
        self, request: web.BaseRequest, house: House, body: bytes, admitted: Admitted, entry: BillEntry | None
    ) -> web.StreamResponse:
        """Send the answer, or lose it in the way the fault says. Ends the entry except when cancelled."""
        if admitted.fault is FaultKind.HANG:
            await asyncio.Event().wait()
        headers = {"Content-Type": _JSON, **house.headers(self._exchange_id()), **admitted.headers}
        response = web.Response(status=200, body=body, headers=headers)
        if admitted.fault in (FaultKind.RESET, FaultKind.CUT_BODY):
            if admitted.fault is FaultKind.RESET:
                reset(request)
            else:
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {_JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
                close_inside(request, head.encode() + body[: len(body) // 2])
            self._drop(entry)
            return response
        await response.prepare(request)
        await response.write_eof()
        self.stats.by_status[200] += 1
        if entry:
            self.bill.end(entry, "answered")
        return response

    def _drop(self, entry: BillEntry | None) -> None:
        if entry:
            self.bill.end(entry, "dropped")

    def _list(self, route: Route, request: web.BaseRequest, path: str, query: str) -> web.Response:
        house = route.house
        if self.rehearsal.decider.plan.dead:
            return self._refuse(house, TurnedAway(Refused(Problem.OVERLOADED), {}, "dead"))
        if route.what == "unknown":
            refused = Refused(Problem.NO_SUCH_PATH, f"{request.method} {path}")
            return self._refuse(house, TurnedAway(refused, {}))
        key = house.key(request.headers)
        # OpenRouter shows its models to anyone.
        is_public = house.name == "openrouter" and route.what == "models"
        if key in (None, BAD_KEY) and not is_public:
            problem = Problem.MISSING_KEY if key is None else Problem.BAD_KEY
            return self._refuse(house, TurnedAway(Refused(problem), {}))
        body = key_info(has_credit=key != NO_CREDIT_KEY) if route.what == "key" else house.models(query)
        return self._json(body, house.headers(self._exchange_id()))

    async def _control(self, request: web.BaseRequest, path: str, query: str) -> web.Response:
        match request.method, path.removeprefix("/_sandbox/"):
            case "GET", ("bill" | "stats" | "events") as page:
                return self._json(await self._page(page, query))
            case "POST", "release":
                return self._json({"released": self.desk.gate.release()})
            case "POST", "reset":
                self._reset()
                return self._json({"reset": True})
            case "POST", "faults":
                return self._set_faults(await request.read())
            case _:
                return _own_json(404, {"error": f"known are {_CONTROLS}"})

    async def _page(self, page: str, query: str) -> dict[str, Any]:
        if page == "stats":
            return self.stats.as_json()
        if page == "events":
            since = query.removeprefix("since=")
            return {"events": self.desk.events.since(int(since) if since.isdecimal() else 0)}
        with_entries = "entries=1" in query.split("&")
        batches = await batch_summary(self.desk, self.bill.paid(), with_entries=with_entries)
        return {**self.bill.summary(with_entries=with_entries), **batches}

    def _reset(self) -> None:
        self.bill.clear()
        self.stats.clear()
        self.rehearsal.clear()
        self.rehearsal.set_plan(self.rehearsal.decider.plan)
        self.desk.clear()

    def _set_faults(self, raw: bytes) -> web.Response:
        try:
            self.rehearsal.set_plan(plan_from(orjson.loads(raw)))
        except ValueError as error:
            return _own_json(400, {"error": str(error)})
        self.desk.renew_faults()
        return self._json(self.rehearsal.decider.plan.model_dump(mode="json"))

    def _refuse(self, house: House, turned: TurnedAway) -> web.Response:
        exchange_id = self._exchange_id()
        status, body = house.refuse(turned.refused, exchange_id)
        if turned.cause:
            self.stats.faults[turned.cause] += 1
        headers = {"Content-Type": _JSON, **house.headers(exchange_id), **turned.headers}
        return self._reply(status, orjson.dumps(body), headers)

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> web.Response:
        self.stats.by_status[status] += 1
        return web.Response(status=status, body=body, headers=headers)

    def _json(self, body: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
        return web.Response(body=orjson.dumps(body), headers={"Content-Type": _JSON, **(headers or {})})

    def _exchange_id(self) -> str:
        self._exchanges += 1
        return f"{self._run}{self._exchanges:012x}"


def _own_json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), headers={"Content-Type": _JSON})
