"""What a bundle sees of the pool: groups in, answers out, in whatever order the answers come."""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import orjson

from transforms.providers.base import Provider
from transforms.records.answer import ModelAnswer, PendingRequest
from transforms.records.call import BatchEnded, CallRecord
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpRequest, HttpResponse, Reply, Usage
from transforms.records.request import ModelRequest
from transforms.rules.call_record import Exchange
from transforms.rules.retry import GiveUp, Retry, RetryPolicy, decide

if TYPE_CHECKING:
    from transforms.providers.pool import CallPool


#: A session that waits wakes up for so many results: a wake-up for each would make the loop's thread, which shares
#: the interpreter's lock, pay two thread switches a call.
_HANDFUL = 64
#: How often a session that waits looks for less than a handful, and whether the pool has failed, seconds.
_FAILURE_CHECK_S = 0.05

#: What a session yields: the end of a request, or the record of a try.
SessionItem = ModelAnswer | PendingRequest | CallRecord


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the pool sends no more; kind is None when the provider is dead rather than refusing."""

    reason: str
    kind: FailureKind | None


def pending_request(request: ModelRequest, stop: Stop) -> PendingRequest:
    """Return the end of a request that is left unsent."""
    return PendingRequest(request.root_request_id, stop.reason, stop.kind, request.riders, request.crowded)


@dataclass(slots=True)
class Batch:
    """One execution record under way: numbers its calls and counts its ends.

    Used on the loop's thread once its requests are queued. tries: how often the group was taken up before in this run.
    """

    batch_id: str
    size: int
    tries: int = 0
    next_index: int = 0
    succeeded: int = 0
    failed: int = 0
    pending: int = 0

    def take_index(self) -> int:
        """Return the next call_index."""
        self.next_index += 1
        return self.next_index - 1

    def call_id(self, index: int) -> str:
        """Return the id of a call; those of a bundle's later try can't meet those of one that is still dying."""
        again = f"-t{self.tries}" if self.tries else ""
        return f"{self.batch_id}{again}-{index:06d}"

    def count(self, kind: FailureKind) -> None:
        """Count the end of one of its requests."""
        if kind is FailureKind.OK:
            self.succeeded += 1
        else:
            self.failed += 1

    def ended(self, run_id: str, at_us: int) -> BatchEnded:
        """Return the record of its end."""
        status = "stopped" if self.pending else "completed"
        return BatchEnded(self.batch_id, run_id, status, at_us, self.succeeded, self.failed, self.pending)

    @property
    def settled(self) -> int:
        """How many of its requests have ended."""
        return self.succeeded + self.failed + self.pending


@dataclass(frozen=True, slots=True)
class LastTry:
    """What a waiting request's last try gave; enough to settle it when there is no other."""

    kind: FailureKind
    reason: str
    call_id: str
    cost_usd: Decimal | None


@dataclass(slots=True)
class Job:
    """One request on its way through the pool."""

    request: ModelRequest
    batch: Batch
    custom_id: str
    session: "CallSession"
    attempt: int = 0
    first_sent_at: float | None = None
    queued_at: float = 0.0
    ready_at: float = 0.0
    order: int = 0
    reserved_tokens: int = 0
    worst_units: int = 0
    invalid_before: bool = False
    rate_limited: int = 0
    last: LastTry | None = None

    def http_request(self, provider: Provider, key: str | None) -> HttpRequest:
        """Build the exchange; made anew for each try so that a waiting request holds no body."""
        return provider.request(provider.body(self.request.prompt), key)

    def late_reason(self, now: float, deadline_s: float) -> str | None:
        """Say why another try is too late, or None when it is not (a request never sent is never late)."""
        if self.last is None or self.first_sent_at is None or now - self.first_sent_at < deadline_s:
            return None
        return f"{self.last.reason}, and the deadline of {deadline_s:g} s passed before another try"

    def shown_body(self, provider: Provider, sent: HttpRequest) -> bytes:
        """Return the body as audit may show it."""
        if self.request.shown_prompt is None:
            return sent.body
        return orjson.dumps(provider.body(self.request.shown_prompt))

    def verdict(self, error: CallError, now: float, policy: RetryPolicy, rand: float) -> Retry | GiveUp:
        """Decide what follows a failed try, and remember what later decisions need."""
        # A 429 says that the pool was too fast, not that the request is hopeless: the deadline alone bounds those.
        self.rate_limited += error.kind is FailureKind.RATE_LIMITED
        tries = max(1, self.attempt - self.rate_limited)
        elapsed_s = 0.0 if self.first_sent_at is None else now - self.first_sent_at
        verdict = decide(error, tries, elapsed_s, policy, rand, invalid_before=self.invalid_before)
        self.invalid_before |= error.kind is FailureKind.INVALID_RESPONSE
        return verdict

    def exchange(
        self,
        started_at_us: int,
        sent_at: float,
        ended_at: float,
        shown_body: bytes,
        response: HttpResponse | None,
        outcome: Reply | CallError,
        provider_request_id: str | None,
    ) -> Exchange:
        """Return the facts of the try that has just ended, for its record; takes the batch's next call_index."""
        index = self.batch.take_index()
        return Exchange(
            request=self.request,
            batch_id=self.batch.batch_id,
            call_index=index,
            call_id=self.batch.call_id(index),
            custom_id=self.custom_id,
            attempt=self.attempt,
            started_at_us=started_at_us,
            latency_ms=round((ended_at - sent_at) * 1000, 3),
            waited_ms=round((sent_at - self.queued_at) * 1000, 3),
            shown_body=shown_body,
            response=response,
            outcome=outcome,
            provider_request_id=provider_request_id,
        )


@dataclass(slots=True)
class _Done:
    results: deque[SessionItem] = field(default_factory=deque)
    outstanding: int = 0


class CallSession:
    """One bundle's requests. `feed` and `drain` are called on the bundle's thread; the rest on the loop's."""

    def __init__(self, pool: "CallPool") -> None:
        self._pool = pool
        self._done = _Done()
        self._changed = threading.Condition()
        self._room_at = 1
        self.abandoned = False

    def feed(self, requests: list[tuple[ModelRequest, str]], batch: Batch) -> Iterator[SessionItem]:
        """Send (request, custom_id) pairs; yields whatever of this session is done, also while it waits for room."""
        while True:
            yield from self._take(block=True, room_at=self._pool.high_water)
            if self._done.outstanding < self._pool.high_water:
                break
        with self._changed:
            self._done.outstanding += len(requests)
        self._pool.add([Job(request, batch, custom_id, self) for request, custom_id in requests])

    def drain(self) -> Iterator[SessionItem]:
        """Yield all that is left, waiting for it."""
        while self._done.outstanding or self._done.results:
            yield from self._take(block=True)

    def abandon(self) -> None:
        """Give the bundle up: nothing of it is sent any more; calls in flight still reach the ledger."""
        self.abandoned = True
        with self._changed:
            self._done.results.clear()

    def _take(self, *, block: bool, room_at: int = 1) -> list[SessionItem]:
        """Return what is done; with `block` wait for a handful, or until less than `room_at` requests are under way."""
        done = self._done
        with self._changed:
            self._room_at = room_at
            while block and done.outstanding >= room_at and len(done.results) < _HANDFUL and self._pool.failure is None:
                if not self._changed.wait(timeout=_FAILURE_CHECK_S) and done.results:
                    break
            if self._pool.failure is not None:
                raise self._pool.failure
            taken = list(done.results)
            done.results.clear()
            return taken

    def observe(self, record: CallRecord) -> None:
        """Hand over the record of one try, for the audit; it is already in the ledger."""
        if self.abandoned:
            return
        with self._changed:
            self._done.results.append(record)

    def settle(
        self,
        job: Job,
        kind: FailureKind,
        reason: str | None,
        call: CallRecord | LastTry,
        reply: Reply | None = None,
    ) -> None:
        """Hand over a request's end; the record of the call that settled it is already in the ledger."""
        job.batch.count(kind)
        self._put(
            job.batch,
            ModelAnswer(
                asked=job.request,
                kind=kind,
                text=reply.text if reply else None,
                reason=reason,
                attempts=job.attempt,
                call_id=call.call_id,
                run_id=self._pool.recorder.run_id,
                reused=False,
                response_model=reply.response_model if reply else None,
                usage=reply.usage if reply else Usage(),
                cost_usd=call.cost_usd,
            ),
        )

    def settle_pending(self, job: Job, stop: Stop) -> None:
        """Hand a request back unsent (or refused for reasons that are not its own)."""
        job.batch.pending += 1
        self._put(job.batch, pending_request(job.request, stop))

    def _put(self, batch: Batch, result: ModelAnswer | PendingRequest) -> None:
        self._pool.settled += 1
        if self.abandoned:
            return
        if batch.settled == batch.size:
            self._pool.end_batch(batch)
        with self._changed:
            self._done.results.append(result)
            self._done.outstanding -= 1
            if self._done.outstanding < self._room_at or len(self._done.results) >= _HANDFUL:
                self._changed.notify()
