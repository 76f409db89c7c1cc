"""Where a batch is at a moment, on compressed time; pure, the clock is an argument.

accepted --validating_s--> in_progress --queue_s--> rows run (0.9 duration_s) --> finalizing (0.1 duration_s) -> completed
                       `-> rejected     a cancel: cancelling (0.1 duration_s) -> cancelled; the window over: expired
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

#: The share of a run that is finalizing; cancelling takes as long.
_FINALIZING = 0.1
_DAY_S = 86_400.0


class BatchStatus(StrEnum):
    """What a batch is doing; each provider has its own word for it."""

    VALIDATING = "validating"
    REJECTED = "rejected"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


ENDED = frozenset({BatchStatus.REJECTED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class BatchTiming:
    """How long things take, seconds.

    Attributes:
        validating_s: until a batch is checked; also until an uploaded file is processed (Azure).
        queue_s: in progress with nothing done yet.
        duration_s: from the first row to the end, finalizing included.
        window_s: until a batch expires; None: 24 hours, and on Azure never.
    """

    validating_s: float = 0.05
    queue_s: float = 0.05
    duration_s: float = 0.5
    window_s: float | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """What decides how a batch goes on.

    Attributes:
        accepted_s: Unix seconds; checked_s: when its lines had been looked at, None while they are.
        is_rejected: its lines, or a limit, were against it.
        is_stuck: it comes half-way.
        expire_at: share of rows after which it expires, or None.
        expires_s: Unix seconds at which it expires by the clock; math.inf for never.
        cancel_s: when it was cancelled, or None.
    """

    accepted_s: float
    checked_s: float | None
    is_rejected: bool
    is_stuck: bool
    expire_at: float | None
    expires_s: float
    cancel_s: float | None


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a batch is now.

    Attributes:
        share: of its rows that have run, 0 to 1.
        times: Unix seconds at which it came into each of the states it has been in.
    """

    status: BatchStatus
    share: float
    times: dict[BatchStatus, float]


def expiry_s(accepted_s: float, timing: BatchTiming, *, expires: bool) -> float:
    """Return when a batch expires by the clock. expires: whether the provider's batches do so by themselves."""
    if timing.window_s is not None:
        return accepted_s + timing.window_s
    return accepted_s + _DAY_S if expires else math.inf


def moment(course: Course, timing: BatchTiming, now_s: float) -> Moment:
    """Return where a batch is at `now_s`."""
    times, shares = _plan(course, timing)
    past = {status: at_s for status, at_s in times.items() if at_s <= now_s}
    order = list(past)
    status = max(past, key=lambda name: (past[name], order.index(name)))
    return Moment(status, shares.at(now_s), past)


@dataclass(frozen=True, slots=True)
class _Shares:
    """Rows run evenly from `from_s` for `run_s` seconds, until `stop_s`; from `full_s` on the share is `most`.

    `full_s` says it exactly where a division of clock readings would come out a hair below.
    """

    from_s: float
    run_s: float
    most: float
    full_s: float = math.inf
    stop_s: float = math.inf

    def at(self, now_s: float) -> float:
        """Return the share of rows that have run by then."""
        now_s = min(now_s, self.stop_s)
        if now_s >= self.full_s:
            return self.most
        passed_s = now_s - self.from_s
        if passed_s < 0:
            return 0.0
        return min(self.most, passed_s / self.run_s if self.run_s > 0 else 1.0)


def _plan(course: Course, timing: BatchTiming) -> tuple[dict[BatchStatus, float], _Shares]:
    """Return when the batch comes into each state, as far as is known now, and how its rows run."""
    times = {BatchStatus.VALIDATING: course.accepted_s}
    checked_s = math.inf if course.checked_s is None else course.checked_s
    started_s = max(course.accepted_s + timing.validating_s, checked_s)
    cancel_s = math.inf if course.cancel_s is None else course.cancel_s
    if course.is_rejected and started_s <= cancel_s:
        return {**times, BatchStatus.REJECTED: started_s}, _Shares(math.inf, 1.0, 0.0)
    run_s = (1 - _FINALIZING) * timing.duration_s
    first_s = started_s + timing.queue_s
    done_s = math.inf if course.is_stuck else first_s + run_s
    expired_s, most = course.expires_s, 0.5 if course.is_stuck else 1.0
    if course.expire_at is not None:
        expired_s, most = min(expired_s, first_s + course.expire_at * run_s), min(most, course.expire_at)
    shares = _Shares(first_s, run_s, most, math.inf if course.is_stuck else first_s + most * run_s)
    end_s = min(done_s, expired_s)
    times[BatchStatus.IN_PROGRESS] = started_s
    if cancel_s < end_s:
        times = {status: at_s for status, at_s in times.items() if at_s <= cancel_s}
        times[BatchStatus.CANCELLING] = cancel_s
        times[BatchStatus.CANCELLED] = max(cancel_s + _FINALIZING * timing.duration_s, checked_s)
    elif expired_s <= done_s:
        times[BatchStatus.EXPIRED] = expired_s
    else:
        times[BatchStatus.FINALIZING] = done_s
        times[BatchStatus.COMPLETED] = done_s + _FINALIZING * timing.duration_s
    return times, replace(shares, stop_s=min(cancel_s, end_s))
