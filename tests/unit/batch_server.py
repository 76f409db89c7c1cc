"""A real HTTP server on loopback that follows a script, for the tests of provider batches.

A step is a coroutine function that answers one request; a route's last step repeats. Bodies are read as they come,
and only their first megabyte is kept.
"""

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

Step = Callable[[web.Request], Awaitable[web.StreamResponse]]

_KEPT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; connection tells one from another."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    size: int
    sha256: str
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return orjson.loads(self.body)


class BatchServer:
    """Serves its script from a thread of its own."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.address = ""
        self._script: dict[tuple[str, str], list[Step]] = {}
        self._connections: list[Any] = []

    def on(self, method: str, path: str, *steps: Step) -> None:
        """Set what a route answers, from now on."""
        self._script[method, path] = list(steps)

    def count(self, method: str, path: str) -> int:
        """Return how many requests a route has had."""
        return sum(seen.method == method and seen.path == path for seen in self.seen)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request by the script; 404 where there is none."""
        steps = self._script.get((request.method, request.path), [answer(404, b"nothing here")])
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if getattr(step, "is_early", False):
            self.seen.append(self._entry(request, 0, "", b""))
            return await step(request)
        digest, size, kept = hashlib.sha256(), 0, b""
        async for piece in request.content.iter_any():
            digest.update(piece)
            size += len(piece)
            kept += piece[: max(0, _KEPT_BYTES - len(kept))]
        self.seen.append(self._entry(request, size, digest.hexdigest(), kept))
        return await step(request)

    def _entry(self, request: web.Request, size: int, sha256: str, body: bytes) -> Seen:
        if request.transport not in self._connections:
            self._connections.append(request.transport)
        connection = self._connections.index(request.transport)
        headers = {name.lower(): text for name, text in request.headers.items()}
        return Seen(request.method, request.path, request.query_string, headers, size, sha256, body, connection)


@contextmanager
def serving() -> Iterator[BatchServer]:
    """Run a server; its address is http://127.0.0.1:<port>."""
    server = BatchServer()
    loop = asyncio.new_event_loop()

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_stop(runner), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


async def _stop(runner: web.ServerRunner) -> None:
    await runner.cleanup()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def answer(status: int, body: Any, **headers: str) -> Step:
    """Answer with a body: bytes as they are, anything else as JSON. Underscores in header names become dashes."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)

    async def step(request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, body=data, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )

    return step


def pieces(
    *parts: bytes, pause_s: float = 0.0, length: int | None = None, is_cut: bool = False, **headers: str
) -> Step:
    """Send a body in pieces: with a Content-Length when one is given, chunked otherwise; is_cut: without its end."""

    async def step(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={name.replace("_", "-"): text for name, text in headers.items()})
        if length is None:
            response.enable_chunked_encoding()
        else:
            response.content_length = length
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(pause_s)
        if is_cut:
            assert request.transport is not None
            request.transport.close()
            raise ConnectionResetError
        await response.write_eof()
        return response

    return step


async def reset(request: web.Request) -> web.StreamResponse:
    """Take the whole request and drop the connection in place of a reply."""
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError


async def reset_early(request: web.Request) -> web.StreamResponse:
    """Drop the connection before the body is read."""
    return await reset(request)


reset_early.is_early = True  # type: ignore[attr-defined]
