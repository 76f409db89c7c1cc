"""The pool of concurrent real-time calls: one event loop, client and throttle per process, shared by all bundles.

A bundle opens a `CallSession`, feeds it groups of requests and takes what is done; all calls overlap. Guaranteed:

* A call's record is handed to `record` (the ledger) before its answer is handed to the session (P4).
* A request is tried again alone, never with its group (P7); a request that waits for its next try holds no slot.
* Memory is bounded per session: `feed` holds the caller back while `high_water` of its requests are under way.
* When the provider refuses the account (billing, key, model) or stays dead, or the budget has no room, everything
  unsent ends as `PendingRequest`; what is in flight is waited for and kept.

Not guaranteed: that a request whose reply was lost was not run by the provider. Its record says so.
"""

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

from transforms.providers.admission import Admission, Alarm, WaitingJobs
from transforms.providers.base import Provider
from transforms.providers.budget import Purse
from transforms.providers.permits import Permits
from transforms.providers.sending import Sender
from transforms.providers.session import Batch, CallSession, Job, LastTry, Stop
from transforms.providers.sharing import JobShares, ShareKeeper
from transforms.providers.transport import Connections, HttpTransport, raise_file_limit
from transforms.records.call import BatchEnded, CallRecord
from transforms.records.errors import InternalError
from transforms.records.failure import RUN_STOPPING, SETTLED, FailureKind
from transforms.records.reply import CallError, Reply
from transforms.records.settings import BatchingSettings, PoolSettings
from transforms.rules.call_record import CallRecorder, reason_of
from transforms.rules.retry import GiveUp, RetryPolicy

_LOG = logging.getLogger("rowbeam.calls")
_BUNDLE_POLL_S = 0.05


class CallPool:
    """Makes calls for one run in one process. Thread-safe: `open` and `close` from any thread.

    Args:
        provider: how requests and replies look; key: the secret, or None.
        settings: limits; batching: whether requests travel singly or in serial bundles.
        recorder: builds call records; record: stores one durably; called on the loop's thread; an exception ends the run.
        transport: makes one with a number of connections (None: as many as needed); purse: what may be spent, or None.
        shares: where processes share the limits (None: this pool has them all); permits: are asked for before each send.
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
        purse: Purse | None = None,
        shares: JobShares | None = None,
        permits: Permits | None = None,
    ) -> None:
        self.provider = provider
        self.settings = settings
        self.batching = batching
        self.recorder = recorder
        self.stats: Counter[str] = Counter()
        self._bundle_sizes: list[int] = []
        self.accepted = self.settled = 0
        self.stop: Stop | None = None
        self.failure: BaseException | None = None
        self._record = record
        self._connections = Connections(transport or (lambda limit: HttpTransport(connections=limit)))
        self._policy = RetryPolicy(max_attempts=settings.max_attempts, deadline_s=settings.deadline)
        self.max_in_flight = min(settings.max_in_flight, max(1, raise_file_limit(settings.max_in_flight + 256) - 256))
        self.high_water = 2 * self.max_in_flight
        self._admission = Admission(provider, settings, self.max_in_flight, purse)
        self._sender = Sender(provider, key, settings, self._admission, recorder, record, self.stats)
        self._waiting = WaitingJobs()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._alarm = Alarm(self._loop, self._pump)
        self._thread = threading.Thread(target=self._loop.run_forever, name="rowbeam-calls", daemon=True)
        self._thread.start()
        if purse is not None:
            purse.wake = lambda: self._loop.call_soon_threadsafe(self._pump)
        self._permits = permits
        self._keeper = None
        if shares is not None:
            self._keeper = ShareKeeper(shares, self._admission, settings, self.stats, self._pump, self._fail)
            self._loop.call_soon_threadsafe(self._keeper.start, lambda: len(self._waiting) + len(self._tasks))

    def open(self) -> CallSession:
        """Return a session for one bundle."""
        return CallSession(self)

    def take_bundle_sizes(self) -> list[int]:
        """Return the sizes of the serial bundles that began since the last time."""
        sizes, self._bundle_sizes = self._bundle_sizes, []
        return sizes

    def add(self, jobs: list[Job]) -> None:
        """Queue jobs; their results reach their sessions."""
        self._loop.call_soon_threadsafe(self._accept, jobs)

    def close(self) -> None:
        """Close connections and end the loop. A session that still waits gets an InternalError, its calls are cut off."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=30)
            self._loop.close()

    def give_up(self, reason: str) -> None:
        """Send no more: what waits ends pending, what is in flight is waited for."""
        self._loop.call_soon_threadsafe(self._give_up, reason)

    @property
    def in_flight(self) -> int:
        """Calls sent and not yet ended."""
        return self._admission.in_flight

    async def _close(self) -> None:
        self._fail(InternalError("the pool of calls was closed while answers were still waited for"))
        self._alarm.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._permits is not None:
            self._permits.close()
        if self._keeper is not None:
            await self._keeper.close()
        await self._connections.close()

    def _accept(self, jobs: list[Job]) -> None:
        self.accepted += len(jobs)
        self._waiting.add(jobs, self._loop.time())
        self._pump()

    def _pump(self) -> None:
        """Start every job that limits allow now; set a timer for the first that must wait."""
        try:
            if self.stop or self.failure:
                self._leave_waiting()
                return
            now = self._loop.time()
            while (job := self._next_ready(now)) is not None:
                self._start(job, now)
        except Exception as exc:  # noqa: BLE001 - the loop's thread has no caller: the sessions raise it
            self._fail(exc)

    def _next_ready(self, now: float) -> Job | None:
        """Return a job with all it needs reserved; None when none may be sent now, with the timer set to ask again."""
        if (job := self._take(now)) is None:
            self._alarm.set(self._waiting.next_in(now))
            return None
        held = self._held(job, now)
        if held == 0:
            return job
        self._waiting.again(job)
        if held is None:
            self._leave_waiting()
        self._alarm.set(held)
        return None

    def _take(self, now: float) -> Job | None:
        while (job := self._waiting.take(now)) is not None:
            if not job.session.abandoned and not self._is_late(job, now):
                return job
        return None

    def _is_late(self, job: Job, now: float) -> bool:
        """Settle a job whose deadline passed while limits held it back: a try that can't end in time may be billed."""
        reason = job.late_reason(now, self.settings.deadline)
        if reason is not None and job.last is not None:
            job.session.settle(job, job.last.kind, reason, job.last)
        return reason is not None

    def _start(self, job: Job, now: float) -> None:
        jobs = [job]
        if self.batching.mode == "serial_bundle":
            while len(jobs) < self.batching.bundle_size and (more := self._take(now)):
                jobs.append(more)
            self._bundle_sizes.append(len(jobs))
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
            await self._call(jobs[0], self._connections.shared())
            while not (self.stop or self.failure) and (job := self._next_ready(self._loop.time())):
                self._pump()
                await asyncio.sleep(0)  # as late as a new task, which costs more, would begin
                await self._call(job, self._connections.shared())
            return
        with self._connections.lane() as lane:
            for job in jobs:
                if job is jobs[0] or await self._admitted(job):
                    await self._call(job, lane)

    async def _admitted(self, job: Job) -> bool:
        """Wait until a later member of a bundle may be sent; False when it has ended unsent."""
        while not (self.stop or self.failure):
            now = self._loop.time()
            if job.session.abandoned or self._is_late(job, now):
                return False
            held = self._held(job, now)
            if held is None:
                break
            if held <= 0:
                return True
            await asyncio.sleep(min(held, _BUNDLE_POLL_S))
        if self.stop and not self.failure:
            job.session.settle_pending(job, self.stop)
        return False

    def _held(self, job: Job, now: float) -> float | None:
        """Reserve what a send needs and return 0.0, or return seconds to wait; None when nothing may be sent any more."""
        held = self._admission.hold(job, now)
        if isinstance(held, Stop):
            self._give_up(held.reason, held.kind)
            return None
        return held

    async def _call(self, job: Job, transport: HttpTransport) -> None:
        if self._permits is None or await self._is_permitted(job, self._permits):
            self._after(job, *await self._sender.send(job, transport))

    async def _is_permitted(self, job: Job, permits: Permits) -> bool:
        """Wait for leave to send; False when the job has ended unsent, or is nobody's any more."""
        if (refusal := await permits.ask()) is not None:
            self._give_up(refusal)
        if not (self.stop or self.failure or job.session.abandoned or self._is_late(job, self._loop.time())):
            return True
        self._admission.cancel(job)
        if self.stop and not self.failure:
            job.session.settle_pending(job, self.stop)
        return False

    def _after(self, job: Job, outcome: Reply | CallError, record: CallRecord, now: float) -> None:
        """Settle the job, or queue its next try."""
        self.stats["answers" if outcome.kind is FailureKind.OK else f"errors_{outcome.kind}"] += 1
        reason = None if outcome.kind is FailureKind.OK else self.recorder.shown(reason_of(outcome), job.request)
        if isinstance(outcome, Reply):
            job.session.settle(job, outcome.kind, reason, record, outcome)
        elif outcome.kind in RUN_STOPPING:
            status = f"HTTP {record.http_status}" if record.http_status else "no reply"
            message = f"{self.provider.name} refused the run ({outcome.kind}, {status}): {reason}"
            job.session.settle_pending(job, self._give_up(message, outcome.kind))
        else:
            self._after_error(job, outcome, record, now)

    def _after_error(self, job: Job, error: CallError, record: CallRecord, now: float) -> None:
        verdict = job.verdict(error, now, self._policy, random.random())
        reason = self.recorder.shown(reason_of(error), job.request)
        if isinstance(verdict, GiveUp):
            # What no later run asks again reads the same there, where only the ledger tells it.
            told = reason if error.kind in SETTLED else f"{reason} ({verdict.reason})"
            job.session.settle(job, error.kind, told, record)
            return
        self.stats["retries"] += 1
        job.last = LastTry(error.kind, reason, record.call_id, record.cost_usd)
        job.queued_at, job.ready_at = now, now + verdict.wait_s
        self._waiting.again(job)

    def end_batch(self, batch: Batch) -> None:
        """Record that the last request of a group has ended."""
        self._record(record := batch.ended(self.recorder.run_id, time.time_ns() // 1000))
        _LOG.info("batch_ended", extra=asdict(record))

    def _give_up(self, reason: str, kind: FailureKind | None = None) -> Stop:
        """Send no more; the first reason stays."""
        if self.stop is None:
            self.stop = Stop(self.recorder.redactor.text(" ".join(reason.split())), kind)
            _LOG.warning("calls_stopped", extra={"run_id": self.recorder.run_id, "reason": self.stop.reason})
        self._leave_waiting()
        return self.stop

    def _fail(self, exc: BaseException) -> None:
        """End the run with an exception that the sessions raise; what waits is nobody's any more."""
        self.failure = self.failure or exc
        self._waiting.clear()

    def _leave_waiting(self) -> None:
        waiting = self._waiting.clear()
        if self.stop and not self.failure:
            for job in waiting:
                job.session.settle_pending(job, self.stop)
