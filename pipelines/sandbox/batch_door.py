"""Finds the endpoint of a batch request, and refuses what no endpoint has to see."""

from collections.abc import Callable

from aiohttp import web

from pipelines.sandbox.batch_engine import Desk
from pipelines.sandbox.batch_http import BatchCall, BatchRoute
from pipelines.sandbox.exchange import Problem
from pipelines.sandbox.rehearsal import BAD_KEY
from pipelines.sandbox.stats import Stats


class BatchDoor:
    """Finds the endpoint of a batch request and does what comes before it.

    Args:
        routes: of all providers.
        desk: their files and batches.
        stats: counts batch requests.
        exchange_id: gives each exchange its id.
    """

    def __init__(
        self, routes: tuple[BatchRoute, ...], desk: Desk, stats: Stats, exchange_id: Callable[[], str]
    ) -> None:
        self._routes = routes
        self._desk = desk
        self._stats = stats
        self._exchange_id = exchange_id

    def find(self, method: str, path: str) -> tuple[BatchRoute, str] | None:
        """Return the route of a path and the id in it, or None when it is no batch endpoint."""
        for route in self._routes:
            found = route.pattern.fullmatch(path) if route.method == method else None
            if found:
                return route, found.groupdict().get("id") or ""
        return None

    async def serve(
        self, request: web.BaseRequest, found: tuple[BatchRoute, str], path: str, query: str
    ) -> web.StreamResponse:
        """Answer a request that `find` knows."""
        route, ident = found
        self._stats.batch_requests += 1
        call = BatchCall(request, route.house, self._desk, self._stats, path, query, ident, self._exchange_id())
        if route.event:
            call.note(route.event, **({"id": ident} if ident else {}))
        refusal = self._refusal(call)
        if refusal:
            return refusal
        return await route.endpoint(call)

    def _refusal(self, call: BatchCall) -> web.Response | None:
        key = call.house.key(call.request.headers)
        if self._desk.rehearsal.decider.plan.dead:
            return call.refuse(Problem.OVERLOADED)
        if key is None or key == BAD_KEY:
            return call.refuse(Problem.MISSING_KEY if key is None else Problem.BAD_KEY)
        unavailable = self._desk.faults.plan.unavailable
        if unavailable:
            self._stats.faults["batch_unavailable"] += 1
            message = f"{call.request.method} {call.path}"
            return call.refuse(Problem.FORBIDDEN if unavailable == 403 else Problem.NO_SUCH_PATH, message)
        objection = call.house.objection(call.request.headers, call.query, {})
        if objection:
            status, body = call.house.refuse(objection, call.exchange_id)
            return call.json(body, status)
        return None
