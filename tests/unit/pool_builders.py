"""A pool of calls whose provider follows a script, and what the tests ask of it."""

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from transforms.providers import make_provider
from transforms.providers.pool import CallPool
from transforms.providers.session import Batch, SessionItem
from transforms.records.answer import ModelAnswer, PendingRequest
from transforms.records.call import BatchEnded, CallRecord
from transforms.records.failure import FailureKind
from transforms.records.reply import HttpRequest, HttpResponse
from transforms.records.request import Lane, ModelRequest, Prompt, PromptHashes
from transforms.records.settings import BatchingSettings, ModelSettings, PoolSettings
from transforms.rules.call_record import CallRecorder
from transforms.rules.price import PriceTable
from transforms.rules.redaction import Redactor

RUN = "20261121T053412-3f9a2c"
KEY = "sk-canary-0123456789abcdef"
MODEL = ModelSettings(provider="openai", name="gpt-4o-mini", base_url="http://127.0.0.1:1/v1")
#: For tests that wait for something to happen in another thread, seconds.
PATIENCE_S = 10.0


def make_request(name: str, **changes: Any) -> ModelRequest:
    """Return a request whose prompt, and id, is `name`."""
    values: dict[str, Any] = {
        "request_id": name,
        "prompt": Prompt(None, (("user", name),)),
        "shown_prompt": None,
        "hashes": PromptHashes("p" * 64, "t" * 64, "v" * 64, None),
        "lane": Lane.MAIN,
        "root_request_id": name,
    }
    return ModelRequest(**{**values, **changes})


def response(status: int, body: Any, **headers: str) -> HttpResponse:
    """Return a response; underscores in header names stand for dashes."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def completion(text: str | None, finish: str = "stop", **message: Any) -> HttpResponse:
    """Return a chat completion."""
    return response(
        200,
        {
            "id": "chatcmpl-1",
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "finish_reason": finish, "message": {"content": text, **message}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2},
        },
    )


def error(status: int, code: str | None = None, message: str = "so it is", **headers: str) -> HttpResponse:
    """Return an error in OpenAI's shape."""
    return response(status, {"error": {"message": message, "type": None, "code": code}}, **headers)


@dataclass(frozen=True)
class Sent:
    """One try as the provider meets it: whose, the how manieth, when, with how much time, on which transport."""

    name: str
    attempt: int
    at: float
    timeout_s: float
    transport: int


Reply = Callable[[Sent], Awaitable[HttpResponse]]


class Script:
    """Makes transports that answer by a function; remembers what was sent and how much was out at once.

    Args:
        reply: coroutine function from Sent to a response; what it raises, the transport raises.
    """

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.sent: list[Sent] = []
        self.attempts: Counter[str] = Counter()
        self.connections: list[int | None] = []
        self.closed = 0
        self.out = self.peak = 0
        self.lane_peaks: defaultdict[int, int] = defaultdict(int)
        self.lane_out: Counter[int] = Counter()

    def __call__(self, connections: int | None) -> Any:
        """Make a transport."""
        self.connections.append(connections)
        return _ScriptedTransport(self, len(self.connections) - 1)

    def names(self) -> list[str]:
        """Return whose tries were sent, in order."""
        return [sent.name for sent in self.sent]


class _ScriptedTransport:
    def __init__(self, script: Script, number: int) -> None:
        self._script = script
        self._number = number

    async def send(self, request: HttpRequest, timeout_s: float) -> HttpResponse:
        script, number = self._script, self._number
        name = orjson.loads(request.body)["messages"][-1]["content"]
        script.attempts[name] += 1
        sent = Sent(name, script.attempts[name], time.monotonic(), timeout_s, number)
        script.sent.append(sent)
        script.out += 1
        script.lane_out[number] += 1
        script.peak = max(script.peak, script.out)
        script.lane_peaks[number] = max(script.lane_peaks[number], script.lane_out[number])
        try:
            async with asyncio.timeout(timeout_s):
                return await script.reply(sent)
        finally:
            script.out -= 1
            script.lane_out[number] -= 1

    async def close(self) -> None:
        self._script.closed += 1


def make_recorder(provider: Any, **changes: Any) -> CallRecorder:
    """Return a recorder for a provider; payloads in full, the key redacted."""
    values: dict[str, Any] = {
        "run_id": RUN,
        "provider_name": provider.name,
        "request_model": provider.request_model,
        "price_model": provider.price_model,
        "payloads": "full",
        "redactor": Redactor([KEY]),
        "prices": PriceTable(),
    }
    return CallRecorder(**{**values, **changes})


class Desk:
    """A pool, its ledger in a list, and its results by name."""

    def __init__(self, pool: CallPool, ledger: list[CallRecord | BatchEnded]) -> None:
        self.pool = pool
        self.ledger = ledger

    @property
    def calls(self) -> list[CallRecord]:
        """The call records, in the order they were stored."""
        return [record for record in list(self.ledger) if isinstance(record, CallRecord)]

    @property
    def ends(self) -> list[BatchEnded]:
        """The ends of batches, in the order they were stored."""
        return [record for record in list(self.ledger) if isinstance(record, BatchEnded)]

    def ask(self, *groups: list[str]) -> dict[str, ModelAnswer | PendingRequest]:
        """Feed groups of names in one session and return each one's end; each must have exactly one."""
        return by_name(self.stream(*groups))

    def stream(self, *groups: list[str]) -> Iterator[ModelAnswer | PendingRequest]:
        """Feed groups of names in one session and yield ends as they come."""
        session = self.pool.open()
        for number, group in enumerate(groups):
            yield from ends(session.feed(pairs(group), Batch(f"b{number}", len(group))))
        yield from ends(session.drain())


def pairs(names: list[str]) -> list[tuple[ModelRequest, str]]:
    """Return what a session is fed with."""
    return [(make_request(name), f"custom-{name}") for name in names]


def ends(items: Iterable[SessionItem]) -> Iterator[ModelAnswer | PendingRequest]:
    """Return the ends of requests among what a session yields; the rest are records of tries."""
    return (item for item in items if not isinstance(item, CallRecord))


def name_of(result: ModelAnswer | PendingRequest) -> str:
    """Return whose end a result is."""
    return result.request.request_id if isinstance(result, ModelAnswer) else result.root_request_id


def by_name(results: Iterator[ModelAnswer | PendingRequest]) -> dict[str, Any]:
    """Return results by name; none may end twice."""
    found: dict[str, Any] = {}
    for result in results:
        assert name_of(result) not in found, f"{name_of(result)} ended twice"
        found[name_of(result)] = result
    return found


def kinds(results: dict[str, Any]) -> dict[str, FailureKind]:
    """Return the kind of each answer."""
    return {name: result.kind for name, result in results.items()}


@contextmanager
def make_desk(
    transport: Any,
    *,
    model: ModelSettings = MODEL,
    mode: str = "per_request",
    record: Callable[[Any], None] | None = None,
    provider: Any = None,
    key: str | None = KEY,
    bundle_size: int = 8,
    proven: bool = True,
    shares: Any = None,
    permits: Any = None,
    **settings: Any,
) -> Iterator[Desk]:
    """Open a pool over a transport factory (None: real HTTP); settings are the job's `pool`.

    proven: as if a first call had gone well, so that calls overlap from the start; shares, permits: as of CallPool.
    """
    provider = provider or make_provider(model, None)
    ledger: list[CallRecord | BatchEnded] = []
    pool = CallPool(
        provider,
        key,
        PoolSettings(**settings),
        BatchingSettings(mode=mode, bundle_size=bundle_size),
        recorder=make_recorder(provider),
        record=record or ledger.append,
        transport=transport,
        shares=shares,
        permits=permits,
    )
    pool._admission._is_proven = proven
    try:
        yield Desk(pool, ledger)
    finally:
        pool.close()


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start work in a thread; the function returned waits for it and returns its result or raises its exception."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as exc:  # noqa: BLE001 - raised again by whoever waits
            outcome.append((None, exc))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(PATIENCE_S)
        assert outcome, "the thread hangs"
        value, exc = outcome[0]
        if exc is not None:
            raise exc
        return value

    return result


def until(condition):
    """Wait for something to become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happens"
        time.sleep(0.005)
