"""What all batch endpoints share over HTTP: key and version checks, replies, and the faults of creates, status and downloads.

A provider's part is a module with a tuple `ROUTES` of BatchRoute, named once in batch_routes.py. An endpoint is an
async function of a BatchCall that returns a response:

    async def _status(call: BatchCall) -> web.StreamResponse:
        batch = call.desk.batch("anthropic", call.ident)
        trouble = call.status_trouble(batch)          # 404, 503 by the faults, or because there is no such batch
        if trouble: return trouble
        return call.json(_shown(call, batch))

Before an endpoint runs, these have been dealt with: the plan is `dead` (503), no or a bad key (401), the batch endpoints
are `unavailable`, the house objects to version headers or api-version. Refusals are worded by the house.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson
from aiohttp import web

from pipelines.sandbox.batch_engine import Batch, Desk, Part, StoredFile
from pipelines.sandbox.batch_spool import Spool
from pipelines.sandbox.breaking import close_inside, reset
from pipelines.sandbox.exchange import House, Problem, Refused
from pipelines.sandbox.rehearsal import NO_CREDIT_KEY
from pipelines.sandbox.stats import Stats

_JSON = "application/json"
_CHUNK = 1 << 16
#: What `unknown_status` says.
STRANGE_STATUS = "reticulating"


@dataclass(frozen=True, slots=True)
class BatchRoute:
    """Where a batch request goes.

    Attributes:
        method: GET, POST or DELETE.
        pattern: of the whole path without query; its group `id`, where it has one, becomes `BatchCall.ident`.
        house: whose words refusals have.
        endpoint: answers.
        event: what the event log notes when the request arrives (upload_begun, create_begun, status, listed), or "".
    """

    method: str
    pattern: re.Pattern[str]
    house: House
    endpoint: "Callable[[BatchCall], Awaitable[web.StreamResponse]]"
    event: str = ""


@dataclass(frozen=True, slots=True)
class BatchCall:
    """One request to a batch endpoint, with what its answer needs.

    Attributes:
        ident: the id in the path, "" where there is none.
        query: as it came; `args` reads it.
    """

    request: web.BaseRequest
    house: House
    desk: Desk
    stats: Stats
    path: str
    query: str
    ident: str
    exchange_id: str

    def args(self) -> dict[str, str]:
        """Return the query's parameters, the last of each name."""
        return {name: values[-1] for name, values in parse_qs(self.query).items()}

    def json(self, body: Any, status: int = 200) -> web.Response:
        """Return a JSON response with the house's headers."""
        headers = {"Content-Type": _JSON, **self.house.headers(self.exchange_id)}
        return web.Response(status=status, body=orjson.dumps(body), headers=headers)

    def refuse(
        self, problem: Problem, message: str = "", param: str | None = None, code: str | None = None
    ) -> web.Response:
        """Return a refusal in the house's words; message, param and code are for Problem.INVALID (400)."""
        status, body = self.house.refuse(Refused(problem, message, param, code), self.exchange_id)
        return self.json(body, status)

    def takes(self, fault: str) -> bool:
        """Tell whether a counted batch fault happens now; counts it down and into the statistics."""
        if not self.desk.faults.take(fault):
            return False
        self.stats.faults[f"batch_{fault}"] += 1
        return True

    def page(self, ids: list[str], default: int, most: int) -> tuple[slice, bool]:
        """Return which part of a list the query's `after` and `limit` ask for, and whether there is more behind it.

        An unknown `after`, or a limit that is no number, counts as not given.
        """
        args = self.args()
        after, limit = args.get("after"), args.get("limit", "")
        first = ids.index(after) + 1 if after in ids else 0
        size = min(most, max(1, int(limit))) if limit.isdecimal() else default
        return slice(first, first + size), first + size < len(ids)

    def note(self, event: str, **facts: Any) -> None:
        """Put an event into the log."""
        self.desk.events.note(event, self.house.name, **facts)

    async def hold(self, fault: str) -> bool:
        """Hold the request, where this counted fault happens, until a release or the client's going; tell whether."""
        if not self.takes(fault):
            return False
        self.note("held", fault=fault)
        await self.desk.gate.wait()
        return True

    async def spool_body(self, most_bytes: int) -> Spool | None:
        """Return the whole body in a spool, or None when it is larger than `most_bytes` (it is read all the same)."""
        spool, size = Spool(), 0
        async for block in self.request.content.iter_chunked(_CHUNK):
            size += len(block)
            if size <= most_bytes:
                spool.write(block)
        return spool if size <= most_bytes else None

    async def create(
        self, accept: Callable[[], Awaitable[Batch | web.Response]], show: Callable[[Batch], Any], status: int = 200
    ) -> web.StreamResponse:
        """Create a batch, with all that can go wrong then. Call it after the body has been read.

        Args:
            accept: calls `desk.accept` and returns the batch; or the response that refuses the create.
            show: returns the JSON of the reply.
            status: of the reply.
        """
        if self.house.key(self.request.headers) == NO_CREDIT_KEY:
            return self.refuse(Problem.NO_CREDIT)
        if self.takes("create_error"):
            return self.refuse(Problem.SERVER_ERROR)
        await self.hold("hold_before_create")
        batch = await accept()
        if isinstance(batch, web.Response):
            return batch
        if self.takes("lost_create"):
            reset(self.request)
            return web.Response()
        await self.hold("hold_create")
        response = self.json(show(batch), status)
        await self.send(response)
        self.note("create_replied", batch_id=batch.id)
        return response

    async def send(self, response: web.Response) -> None:
        """Hand a response to the network now, so that what is noted next comes after it."""
        await response.prepare(self.request)
        await response.write_eof()

    def status_trouble(self, batch: Batch | None) -> web.Response | None:
        """Return the 503 or 404 that a status check gets, or None when it is to be answered."""
        if self.takes("status_error"):
            return self.refuse(Problem.OVERLOADED)
        if batch is None or self.desk.faults.plan.gone:
            return self.refuse(Problem.NO_SUCH_THING, f"No batch found with id '{self.ident}'.")
        return None

    def status_word(self, word: str) -> str:
        """Return a provider's word for a status, or the strange one while that fault lasts."""
        return STRANGE_STATUS if self.takes("unknown_status") else word

    async def results(
        self, batch: Batch, part: Part, content_type: str, *, head: bytes = b"", between: bytes = b"", tail: bytes = b""
    ) -> web.StreamResponse:
        """Stream the results of a batch, with the faults of downloads; lines are made while they are sent.

        Args:
            batch: it has ended.
            part: which of its results.
            content_type: of the response.
            head: sent before the lines.
            between: between two lines.
            tail: after them.
        """
        self.note("results_begun", batch_id=batch.id, part=part)
        headers = {"Content-Type": content_type, **self.house.headers(self.exchange_id)}
        response = web.StreamResponse(headers=headers)
        try:
            await response.prepare(self.request)
            whole = await self._send_lines(response, batch, part, (head, between, tail))
        except ConnectionError:
            # The client has gone; aiohttp finds that out again by itself.
            return response
        if whole:
            await response.write_eof()
            self.note("results_done", batch_id=batch.id, part=part)
        return response

    async def stored(self, file: StoredFile, content_type: str) -> web.StreamResponse:
        """Stream an uploaded file as it came."""
        headers = {"Content-Type": content_type, "Content-Length": str(file.spool.size)}
        response = web.StreamResponse(headers={**headers, **self.house.headers(self.exchange_id)})
        await response.prepare(self.request)
        for block in file.spool.blocks():
            await response.write(block)
        await response.write_eof()
        return response

    async def _send_lines(
        self, response: web.StreamResponse, batch: Batch, part: Part, frame: tuple[bytes, bytes, bytes]
    ) -> bool:
        """Send everything; False when the connection was cut on purpose."""
        is_cut, half = self.takes("cut_download"), -1
        if is_cut or self.desk.faults.plan.hold_download:
            half = _lines_in(self.desk, batch, part) // 2
        head, between, tail = frame
        waiting = bytearray(head)
        for number, line in enumerate(self.desk.results(batch, part)):
            if number == half:
                await self._write(response, bytes(waiting + (line[: len(line) // 2] if is_cut else b"")))
                waiting.clear()
                if is_cut:
                    close_inside(self.request)
                    return False
                await self.hold("hold_download")
            if number:
                waiting += between
            waiting += line
            if len(waiting) >= _CHUNK:
                await self._write(response, bytes(waiting))
                waiting.clear()
        await self._write(response, bytes(waiting + tail))
        return True

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        """Send bytes, no faster than slow_download allows, and let others have a turn."""
        rate = self.desk.faults.plan.slow_download
        step = max(1, int(rate / 20)) if rate else max(1, len(data))
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            await response.write(piece)
            await asyncio.sleep(len(piece) / rate if rate else 0)


def _lines_in(desk: Desk, batch: Batch, part: Part) -> int:
    """Return about how many lines a part of the results has."""
    view = desk.view(batch)
    good, bad = view.completed, view.failed + view.unfinished
    return {Part.OUTPUT: good, Part.ERROR: bad, Part.ALL: good + bad}[part]
