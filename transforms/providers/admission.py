"""Who may be sent next, and when: the jobs that wait, and the limits that hold them back.

For one thread; `now` is monotonic seconds and never goes back.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal

from transforms.providers.base import Provider
from transforms.providers.breaker import CircuitBreaker, Dead
from transforms.providers.budget import Purse
from transforms.providers.session import Job, Stop
from transforms.providers.throttle import Throttle
from transforms.records.failure import RUN_STOPPING, FailureKind
from transforms.records.reply import CallError, HttpResponse, Reply
from transforms.records.settings import PoolSettings
from transforms.rules.tokens import prompt_tokens

#: Seconds that the first call has to itself.
_PROOF_S = 5.0


class WaitingJobs:
    """Jobs that are not being called: new ones in their order, and those that are to be tried again at a time."""

    __slots__ = ("_again", "_new", "_order")

    def __init__(self) -> None:
        self._new: deque[Job] = deque()
        self._again: list[tuple[float, int, Job]] = []
        self._order = itertools.count()

    def add(self, jobs: Iterable[Job], now: float) -> None:
        """Queue new jobs."""
        for job in jobs:
            job.order, job.ready_at, job.queued_at = next(self._order), now, now
            self._new.append(job)

    def again(self, job: Job) -> None:
        """Queue a job for its `ready_at`; ahead of new ones when the time has come."""
        heapq.heappush(self._again, (job.ready_at, job.order, job))

    def take(self, now: float) -> Job | None:
        """Return a job whose time has come, or None."""
        if self._again and self._again[0][0] <= now:
            return heapq.heappop(self._again)[2]
        return self._new.popleft() if self._new else None

    def next_in(self, now: float) -> float | None:
        """Return seconds until the first retry is due, or None; only worth asking when `take` gave None."""
        return self._again[0][0] - now if self._again else None

    def __len__(self) -> int:
        return len(self._new) + len(self._again)

    def clear(self) -> list[Job]:
        """Return all of them, in no order; none waits any more."""
        jobs = [*self._new, *(entry[2] for entry in self._again)]
        self._new.clear()
        self._again.clear()
        return jobs


class Alarm:
    """One timer of an event loop: a later time replaces the one that was set."""

    __slots__ = ("_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, wait_s: float | None) -> None:
        """Ring in so many seconds; None and inf, the end of a call, leave what was set."""
        if wait_s is not None and wait_s != float("inf"):
            self.cancel()
            self._timer = self._loop.call_later(max(0.0, wait_s), self._ring)

    def cancel(self) -> None:
        """Ring no more."""
        if self._timer:
            self._timer.cancel()


class Admission:
    """The throttle and the circuit breaker as one: reserve before a call, settle after it.

    Args:
        provider: what is called; reads rate-limit headers and gives the answer's token limit.
        settings: the limits.
        max_in_flight: calls at a time, at most.
        purse: what may be spent; None: no budget is set. No call is sent without its worst case.
    """

    def __init__(
        self, provider: Provider, settings: PoolSettings, max_in_flight: int, purse: Purse | None = None
    ) -> None:
        self._provider = provider
        self._counts_tokens = settings.tokens_per_minute is not None
        self.throttle = Throttle(
            max_in_flight=max_in_flight,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        )
        self._breaker = CircuitBreaker(open_after=settings.breaker_after, give_up_after_s=settings.give_up_after)
        self._purse = purse
        self._is_proven = False
        self._first_at: float | None = None
        #: Where the limits are shared with other processes: says whether this one holds a part of them now.
        self.may_send: Callable[[float], bool] | None = None

    @property
    def in_flight(self) -> int:
        """Calls admitted and not yet settled."""
        return self.throttle.concurrency.in_flight

    def hold(self, job: Job, now: float) -> float | Stop:
        """Reserve what a call needs and return 0.0; else reserve nothing and return seconds to wait, or what ends the run.

        inf means that the end of a call is the time to ask again, or that the pool is told. Every 0.0 is followed by one
        `settle` and one `charge`, or by one `cancel`. The first call goes out alone: a wrong key or model is refused once and not hundreds of times, and a provider that
        compiles the answer's schema on its first use does so once (providers.md 10.2).
        """
        if self.may_send is not None and not self.may_send(now):
            return float("inf")
        if not self._is_proven and self.in_flight:
            self._first_at = self._first_at or now
            if now - self._first_at < _PROOF_S:
                return _PROOF_S - (now - self._first_at)
            self._is_proven = True
        held = self._breaker.admit(now)
        if isinstance(held, Dead):
            what = f"{self._provider.name} has given no answer for {held.after_s:.0f} s"
            return Stop(f"{what}; run the job again when it is back", None)
        if held > 0.0:
            return held
        if self._counts_tokens and not job.reserved_tokens:
            job.reserved_tokens = prompt_tokens(job.request.prompt) + (self._provider.max_output_tokens or 0)
        return self._admit(job, now) if self._purse is None else self._spend(self._purse, job, now)

    def _admit(self, job: Job, now: float) -> float:
        held = self.throttle.admit(now, job.reserved_tokens)
        if held > 0.0:
            self._breaker.unsent()
        return held

    def _spend(self, purse: Purse, job: Job, now: float) -> float | Stop:
        """Reserve the call's worst case, and then the rest: nothing is sent that the budget may not bear."""
        if not job.worst_units:
            job.worst_units = purse.worst(job.request.prompt)
        held = purse.reserve(job.worst_units)
        if isinstance(held, str):
            self._breaker.unsent()
            return Stop(held, FailureKind.BUDGET)
        if held > 0.0:
            self._breaker.unsent()
            return held
        held = self._admit(job, now)
        if held > 0.0:
            purse.unreserve(job.worst_units)
        return held

    def cancel(self, job: Job) -> None:
        """Take everything back that was reserved for a call which was then not sent."""
        self.throttle.cancel(job.reserved_tokens)
        self._breaker.unsent()
        if self._purse is not None:
            self._purse.unreserve(job.worst_units)

    def charge(self, job: Job, cost_usd: Decimal | None) -> None:
        """Charge the budget, where there is one, with what a call cost; None, unknown: with its worst case."""
        if self._purse is not None:
            self._purse.settle(job.worst_units, cost_usd)

    def settle(
        self,
        job: Job,
        sent_at: float,
        now: float,
        unix_s: float,
        response: HttpResponse | None,
        outcome: Reply | CallError,
    ) -> None:
        """Give back what a call had reserved, and learn from how it ended.

        Args:
            job: as admitted.
            sent_at: when it was sent, monotonic seconds.
            now: when it ended, on the same clock.
            unix_s: the same now as Unix time, for headers that name a time of day.
            response: None when none came back.
            outcome: what it means.
        """
        self._is_proven = self._is_proven or outcome.kind not in RUN_STOPPING
        usage = outcome.usage
        used = None
        if usage.input_tokens is not None and usage.output_tokens is not None:
            used = usage.input_tokens + usage.output_tokens
        error = outcome if isinstance(outcome, CallError) else None
        limits = self._provider.rate_limits(response, unix_s) if response else None
        self.throttle.settle(now, sent_at, job.reserved_tokens, used, error, limits)
        self._breaker.settle(now, sent_at, error, self.in_flight)
