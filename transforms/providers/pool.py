"""The pool of concurrent real-time calls: one event loop, client and throttle per process, shared by all bundles.

A bundle opens a `CallSession`, feeds it groups of requests, and takes what is done; calls of all sessions overlap.
The guarantees:

* A call's record is handed to `record` (the ledger) before its answer is handed to the session (P4).
* A request is tried again alone, never with its group (P7); a request that waits for its next try holds no slot.
* Memory is bounded: `CallSession.feed` holds the caller back while `high_water` requests are queued or in flight.
* When the provider refuses the account (billing, key, model) or stays dead, everything unsent ends as
  `PendingRequest`; what is in flight is waited for and kept.

Not guaranteed: that a request whose reply was lost was not run by the provider. Its record says so.
"""

import asyncio
import heapq
import itertools
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from transforms.providers.base import Provider
from transforms.providers.breaker import CircuitBreaker, Dead
from transforms.providers.session import Batch, CallSession, Job, Stop
from transforms.providers.throttle import Throttle
from transforms.providers.transport import HttpTransport, raise_file_limit, transport_error
from transforms.records.call import BatchEnded, CallRecord
from transforms.records.failure import RUN_STOPPING, FailureKind
from transforms.records.reply import CallError, HttpResponse, Reply
from transforms.records.settings import BatchingSettings, PoolSettings
from transforms.rules.call_record import CallRecorder, Exchange, reason_of
from transforms.rules.retry import GiveUp, RetryPolicy, decide
from transforms.rules.tokens import prompt_tokens

_MAX_WAIT_S = 3600.0
_BUNDLE_POLL_S = 0.05


class CallPool:
    """Makes calls for one run in one process. Thread-safe: `open` and `close` from any thread.

    Args:
        provider: how requests and replies look.
        key: the secret, or None.
        settings: limits; batching: whether requests travel singly or in serial bundles.
        recorder: builds call records.
        record: stores one record durably; called on the loop's thread; an exception ends the run.
        transport: makes a transport with a number of connections (None: as many as needed).
    """

    def __init__(
        self,
        provider: Provider,
        key: str | None,
        settings: PoolSettings,
        batching: BatchingSettings,
        *,
        recorder: CallRecorder,
        record: Callable[[CallRecord | BatchEnded], None],
        transport: Callable[[int | None], HttpTransport] | None = None,
    ) -> None:
        self.provider = provider
        self.settings = settings
        self.batching = batching
        self.recorder = recorder
        self.stats: Counter[str] = Counter()
        self.bundle_sizes: deque[int] = deque(maxlen=100_000)
        self.accepted = self.settled = 0
        self.stop: Stop | None = None
        self.failure: BaseException | None = None
        self._key = key
        self._record = record
        self._make_transport = transport or (lambda connections: HttpTransport(connections=connections))
        self._policy = RetryPolicy(max_attempts=settings.max_attempts, deadline_s=settings.deadline)
        self.max_in_flight = min(settings.max_in_flight, max(1, raise_file_limit(settings.max_in_flight + 256) - 256))
        self.high_water = 2 * self.max_in_flight
        self._throttle = Throttle(
            max_in_flight=self.max_in_flight,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        )
        self._breaker = CircuitBreaker(open_after=settings.breaker_after, give_up_after_s=settings.give_up_after)
        self._queue: deque[Job] = deque()
        self._retries: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._lanes: list[HttpTransport] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._main: HttpTransport | None = None
        self._thread = threading.Thread(target=self._run_loop, name="rowbeam-calls", daemon=True)
        self._thread.start()

    # -- from any thread ------------------------------------------------------------------------------------------

    def open(self) -> CallSession:
        """Return a session for one bundle."""
        return CallSession(self)

    def add(self, jobs: list[Job]) -> None:
        """Queue jobs; their results reach their sessions."""
        self._loop.call_soon_threadsafe(self._accept, jobs)

    def close(self) -> None:
        """Close connections and end the loop. Sessions must have been drained."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=30)
            self._loop.close()

    # -- on the loop's thread -------------------------------------------------------------------------------------

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for transport in [*self._lanes, *([self._main] if self._main else [])]:
            await transport.close()

    def _accept(self, jobs: list[Job]) -> None:
        self.accepted += len(jobs)
        self._queue.extend(jobs)
        self._pump()

    def _pump(self) -> None:
        """Start every job that limits allow now; set a timer for the first that must wait."""
        try:
            if self.stop or self.failure:
                self._leave_pending()
                return
            wait = self._start_ready(self._loop.time())
            if wait is not None:
                self._wake_in(wait)
        except Exception as exc:  # noqa: BLE001 - the loop's thread has no caller: the sessions raise it
            self._fail(exc)

    def _start_ready(self, now: float) -> float | None:
        while True:
            job = self._next_ready(now)
            if job is None:
                return self._retries[0][0] - now if self._retries else None
            held = self._held(now, job)
            if held is None:
                heapq.heappush(self._retries, (job.ready_at, job.order, job))
                self._leave_pending()
                return None
            if held > 0:
                heapq.heappush(self._retries, (job.ready_at, job.order, job))
                return min(held, _MAX_WAIT_S) if held != float("inf") else None
            self._start(job, now)

    def _next_ready(self, now: float) -> Job | None:
        if self._retries and self._retries[0][0] <= now:
            return heapq.heappop(self._retries)[2]
        if not self._queue:
            return None
        job = self._queue.popleft()
        job.order, job.ready_at, job.queued_at = next(self._order), now, now
        if self.settings.tokens_per_minute is not None:
            job.reserved_tokens = prompt_tokens(job.request.prompt) + (self.provider.max_output_tokens or 0)
        return job

    def _start(self, job: Job, now: float) -> None:
        jobs = [job]
        if self.batching.mode == "serial_bundle":
            while len(jobs) < self.batching.bundle_size and (more := self._next_ready(now)):
                jobs.append(more)
            self.bundle_sizes.append(len(jobs))
        task = self._loop.create_task(self._call_in_turn(jobs))
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()):
            self._fail(exc)
        self._pump()

    async def _call_in_turn(self, jobs: list[Job]) -> None:
        if self.batching.mode != "serial_bundle":
            if self._main is None:
                self._main = self._make_transport(None)
            await self._call(jobs[0], self._main)
            return
        lane = self._lanes.pop() if self._lanes else self._make_transport(1)
        try:
            for place, job in enumerate(jobs):
                if place and not await self._admitted(job):
                    job.session.settle_pending(job, self._why_stopped())
                    continue
                await self._call(job, lane)
        finally:
            self._lanes.append(lane)

    async def _admitted(self, job: Job) -> bool:
        """Wait until a later member of a bundle may be sent; False when the run stopped meanwhile."""
        while not (self.stop or self.failure):
            now = self._loop.time()
            held = self._held(now, job)
            if held is not None and held <= 0:
                return True
            await asyncio.sleep(min(held or 0.0, _BUNDLE_POLL_S))
        return False

    def _held(self, now: float, job: Job) -> float | None:
        """Reserve what a send needs and return 0.0, or return seconds to wait; None when the provider is dead."""
        held = self._breaker.admit(now)
        if isinstance(held, Dead):
            what = f"{self.provider.name} has given no answer for {held.after_s:.0f} s"
            self._give_up(f"{what}; run the job again when it is back")
            return None
        if held > 0:
            return held
        held = self._throttle.admit(now, job.reserved_tokens)
        if held > 0:
            self._breaker.unsent()
        return held

    async def _call(self, job: Job, transport: HttpTransport) -> None:
        request = job.http_request(self.provider, self._key)
        sent_at = self._loop.time()
        job.first_sent_at = job.first_sent_at or sent_at
        job.attempt += 1
        self.stats["requests_sent"] += 1
        started_at_us = time.time_ns() // 1000
        response: HttpResponse | None = None
        outcome: Reply | CallError
        budget = self.settings.deadline - (sent_at - job.first_sent_at)
        try:
            response = await transport.send(request, max(0.001, min(self.settings.timeout, budget)))
            outcome = self.provider.read(response)
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 - transport_error raises again what it does not know
            outcome = transport_error(exc)
        now = self._loop.time()
        self._settle_limits(job, sent_at, now, response, outcome)
        exchange = Exchange(
            request=job.request,
            batch_id=job.batch.batch_id,
            call_index=job.batch.take_index(),
            custom_id=job.custom_id,
            attempt=job.attempt,
            started_at_us=started_at_us,
            latency_ms=round((now - sent_at) * 1000, 3),
            waited_ms=round((sent_at - job.queued_at) * 1000, 3),
            shown_body=job.shown_body(self.provider, request),
            response=response,
            outcome=outcome,
            provider_request_id=self.provider.request_id(response) if response else None,
        )
        record = self.recorder.record(exchange)
        self._record(record)
        self._after(job, outcome, record, now)

    def _settle_limits(
        self, job: Job, sent_at: float, now: float, response: HttpResponse | None, outcome: Reply | CallError
    ) -> None:
        usage = outcome.usage
        used = None
        if usage.input_tokens is not None and usage.output_tokens is not None:
            used = usage.input_tokens + usage.output_tokens
        error = outcome if isinstance(outcome, CallError) else None
        limits = self.provider.rate_limits(response, time.time()) if response else None
        self._throttle.settle(now, sent_at, job.reserved_tokens, used, error, limits)
        self._breaker.settle(now, sent_at, error, self._throttle.concurrency.in_flight)

    def _after(self, job: Job, outcome: Reply | CallError, record: CallRecord, now: float) -> None:
        """Settle the job, or queue its next try."""
        self.stats["answers" if outcome.kind is FailureKind.OK else f"errors_{outcome.kind}"] += 1
        if isinstance(outcome, Reply):
            job.session.settle(job, outcome.kind, outcome, record, None)
            return
        if outcome.kind in RUN_STOPPING:
            status = f"HTTP {record.http_status}" if record.http_status else "no reply"
            message = f"{self.provider.name} refused the run ({outcome.kind}, {status}): {reason_of(outcome)}"
            self._give_up(message, outcome.kind)
            job.session.settle_pending(job, self._why_stopped())
            return
        elapsed = now - (job.first_sent_at or now)
        # A 429 says that the pool was too fast, not that the request is hopeless: the deadline alone bounds those.
        job.rate_limited += outcome.kind is FailureKind.RATE_LIMITED
        tries = max(1, job.attempt - job.rate_limited)
        verdict = decide(outcome, tries, elapsed, self._policy, random.random(), invalid_before=job.invalid_before)
        job.invalid_before |= outcome.kind is FailureKind.INVALID_RESPONSE
        if isinstance(verdict, GiveUp):
            reason = self.recorder.redactor.text(f"{reason_of(outcome)} ({verdict.reason})")
            job.session.settle(job, outcome.kind, None, record, reason)
            return
        self.stats["retries"] += 1
        job.queued_at, job.ready_at = now, now + verdict.wait_s
        heapq.heappush(self._retries, (job.ready_at, job.order, job))

    def end_batch(self, batch: Batch) -> None:
        """Record that the last request of a group has ended."""
        status = "stopped" if batch.pending else "completed"
        counts = (batch.succeeded, batch.failed, batch.pending)
        self._record(BatchEnded(batch.batch_id, self.recorder.run_id, status, time.time_ns() // 1000, *counts))

    # -- stopping -------------------------------------------------------------------------------------------------

    def _why_stopped(self) -> Stop:
        return self.stop or Stop(f"the run failed: {self.failure}", None)

    def _give_up(self, reason: str, kind: FailureKind | None = None) -> None:
        if self.stop is None:
            self.stop = Stop(reason=self.recorder.redactor.text(reason), kind=kind)
        self._leave_pending()

    def _fail(self, exc: BaseException) -> None:
        self.failure = self.failure or exc
        self._leave_pending()

    def _leave_pending(self) -> None:
        waiting = [*self._queue, *(entry[2] for entry in self._retries)]
        self._queue.clear()
        self._retries.clear()
        for job in waiting:
            job.session.settle_pending(job, self._why_stopped())

    def _wake_in(self, wait_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, wait_s), self._pump)
