"""The sandbox as a server: a rehearsal provider that speaks OpenAI, Azure, Anthropic and OpenRouter over real HTTP.

`run` blocks until SIGINT or SIGTERM (the command line); `RunningSandbox` has one in a process of its own (tests,
benchmarks). Batches run on compressed time (BatchTiming), everything else in real time; keys are not checked beyond being there (`bad-key` is refused, `no-credit` has
no money, the model `no-such-model` does not exist).
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.bill import Bill
from pipelines.sandbox.faults import FaultPlan
from pipelines.sandbox.handlers import Handlers
from pipelines.sandbox.rehearsal import Rehearsal
from pipelines.sandbox.routes import BASE_PATHS
from pipelines.sandbox.running import RunningSandbox
from pipelines.sandbox.stats import Stats

__all__ = ["RunningSandbox", "SandboxSettings", "run"]

_BACKLOG = 4096
#: Anthropic's limit for a request in real time, the largest of the four (providers.md 4.6); uploads and inline
#: creates of batches are read in pieces, which this does not bound.
_MAX_BODY_BYTES = 32 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """How the sandbox behaves.

    Attributes:
        port: 0 lets the system choose.
        latency_s, jitter_s: an answer takes latency_s plus up to jitter_s, seconds.
        faults: what goes wrong.
        seed: changes all answers, faults and jitters.
        requests_per_minute, tokens_per_minute: limits per provider and model; None for none.
        bill_path: a file to append the bill to, JSONL.
        batch: how long batches take.
    """

    port: int = 0
    host: str = "127.0.0.1"
    latency_s: float = 0.0
    jitter_s: float = 0.0
    faults: FaultPlan = field(default_factory=FaultPlan)
    seed: int = 0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    bill_path: Path | None = None
    batch: BatchTiming = field(default_factory=BatchTiming)


def run(settings: SandboxSettings, *, as_json: bool = False, stop_on_eof: bool = False) -> None:
    """Serve until SIGINT or SIGTERM, then close the bill and return.

    Prints one line when it is ready: the base URLs and an example command, or with as_json an object with
    `port`, `url` and `base_urls`.

    Args:
        settings: what to serve.
        as_json: print the line for programs.
        stop_on_eof: stop also when standard input ends, that is when the starting process has gone.

    Raises:
        OSError: the address is taken, or the bill file can't be opened.
    """
    _raise_file_limit()
    asyncio.run(_serve(settings, as_json=as_json, stop_on_eof=stop_on_eof))


async def _serve(settings: SandboxSettings, *, as_json: bool, stop_on_eof: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if stop_on_eof:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end, stop.set)
    bill = Bill(settings.bill_path)
    rehearsal = Rehearsal(settings.faults, settings.seed, settings.requests_per_minute, settings.tokens_per_minute)
    handlers = Handlers(rehearsal, bill, settings.latency_s, settings.jitter_s, settings.batch)
    protocols = _Server(handlers)
    server = await loop.create_server(protocols, settings.host, settings.port, backlog=_BACKLOG)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(_ready_line(settings.host, port, as_json=as_json) + "\n")
    sys.stdout.flush()
    try:
        await stop.wait()
    finally:
        server.close()
        # aiohttp's own shutdown waits for ever for a request that hangs.
        await _cancel_all_others()
        bill.close()


class _Server(web.Server):
    """aiohttp's low-level server (no router, no middlewares), with connections counted.

    A handler whose client goes away is cancelled: that is how a dropped request is noticed.
    """

    def __init__(self, handlers: Handlers) -> None:
        super().__init__(
            handlers.handle,
            request_factory=self._request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=300.0,
        )
        self._stats: Stats = handlers.stats

    def connection_made(self, handler: Any, transport: Any) -> None:
        self._stats.connection_opens()
        super().connection_made(handler, transport)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        self._stats.connection_closes()
        super().connection_lost(handler, exc)

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=_MAX_BODY_BYTES)


async def _cancel_all_others() -> None:
    """Cancel every request and wait until each has written its end on the bill."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _ready_line(host: str, port: int, *, as_json: bool) -> str:
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    base_urls = {name: url + path for name, path in BASE_PATHS.items()}
    if as_json:
        return orjson.dumps({"port": port, "url": url, "base_urls": base_urls}).decode()
    shown = "  ".join(f"{name} {base_urls[name]}" for name in ("openai", "azure_openai", "anthropic", "openrouter"))
    return (
        f"Sandbox ready: {shown}  "
        f"Try: OPENAI_API_KEY=any rowbeam run JOB.yaml --set model.base_url={base_urls['openai']}"
    )


def _stop_at_end(stop: Callable[[], None]) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        stop()


def _raise_file_limit() -> None:
    """Allow as many open connections as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
