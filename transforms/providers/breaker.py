"""A circuit breaker, so that a dead provider neither burns every request's tries nor stalls the job for ever.

Synchronous, for one thread; `now` is monotonic seconds and never goes back. Every call is O(1).

    closed --`open_after` infrastructure failures in a row, and no fewer than calls are out--> open: all sends wait,
    but for one probe at growing intervals --a request sent since then succeeds--> closed, or --nothing for `give_up_after_s`--> dead, for good.

What counts is when a request was *sent*: a failure says nothing that a success sent later has not disproved, so
requests that hang at a provider that otherwise answers never open the breaker, whatever order they end in.
"""

from dataclasses import dataclass

from transforms.records.failure import FailureKind
from transforms.records.reply import CallError

#: Failures of the provider's machinery; a 429 is the throttle's business, a refusal is an answer.
_FAILURES = frozenset(
    {FailureKind.SERVER_ERROR, FailureKind.OVERLOADED, FailureKind.TIMEOUT, FailureKind.CONNECTION_ERROR}
)

#: Neither a success nor a failure: something answered, but not the model.
_NO_EVIDENCE = frozenset({FailureKind.RATE_LIMITED, FailureKind.INVALID_RESPONSE})

_MAX_DOUBLINGS = 30
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Dead:
    """Nothing is to be sent any more; what is left stays pending. after_s: seconds without any success."""

    after_s: float


class CircuitBreaker:
    """Opens on failures in a row, probes, and closes or dies.

    Args:
        open_after: infrastructure failures in a row, with no success between, that open it; with more than that
            many calls in flight, as many as are in flight.
        give_up_after_s: seconds without any success, from the opening, until it is dead.
        probe_first_s: wait before the first probe; each further wait is twice as long.
        probe_max_s: longest wait between probes.
    """

    __slots__ = (
        "_dead",
        "_failures",
        "_give_up_after_s",
        "_handed_out_at",
        "_next_probe_at",
        "_open_after",
        "_opened_at",
        "_probe_first_s",
        "_probe_max_s",
        "_probes",
        "_success_at",
        "_success_sent_at",
    )

    def __init__(
        self, open_after: int, give_up_after_s: float, probe_first_s: float = 1.0, probe_max_s: float = 30.0
    ) -> None:
        self._open_after = open_after
        self._give_up_after_s = give_up_after_s
        self._probe_first_s = probe_first_s
        self._probe_max_s = probe_max_s
        self._failures = 0
        self._opened_at: float | None = None
        self._next_probe_at = 0.0
        self._handed_out_at = 0.0
        self._probes = 0
        self._success_at = _NEVER
        self._success_sent_at = _NEVER
        self._dead: Dead | None = None

    @property
    def is_open(self) -> bool:
        """True while sends are held (or the provider is given up)."""
        return self._opened_at is not None

    def admit(self, now: float) -> float | Dead:
        """Return 0.0 when a request may be sent, else seconds until it is worth asking again, or Dead.

        While open, 0.0 hands out the probe; if it is then not sent, say so with unsent().
        """
        if self._opened_at is None:
            return 0.0
        if self._dead is not None:
            return self._dead
        silent_s = now - max(self._opened_at, self._success_at)
        if silent_s >= self._give_up_after_s:
            self._dead = Dead(after_s=silent_s)
            return self._dead
        if now < self._next_probe_at:
            return min(self._next_probe_at - now, self._give_up_after_s - silent_s)
        self._handed_out_at = now
        self._probes += 1
        self._next_probe_at = now + self._interval_s()
        return 0.0

    def unsent(self) -> None:
        """Take back the probe that admit() has just handed out, so that the next admit() hands it out again."""
        if self._opened_at is not None and self._probes:
            self._probes -= 1
            self._next_probe_at = self._handed_out_at

    def settle(self, now: float, sent_at: float, error: CallError | None, in_flight: int) -> None:
        """Take in how a call ended.

        Args:
            now: monotonic seconds.
            sent_at: when the call was sent, on the same clock.
            error: None for an answer of any kind.
            in_flight: calls still out. Failures come back sooner than answers: as long as more are out than have
                failed, the answers may be among those.
        """
        kind = FailureKind.OK if error is None else error.kind
        if kind in _FAILURES:
            if self._opened_at is None and sent_at > self._success_sent_at:
                self._failures += 1
                if self._failures >= max(self._open_after, in_flight):
                    self._open(now)
        elif kind not in _NO_EVIDENCE:
            self._failures = 0
            self._success_at = now
            self._success_sent_at = max(self._success_sent_at, sent_at)
            self._close_if_sent_since(sent_at)
        elif kind is FailureKind.RATE_LIMITED:
            self._close_if_sent_since(sent_at)

    def _open(self, now: float) -> None:
        self._opened_at = now
        self._probes = 0
        self._next_probe_at = now + self._interval_s()

    def _interval_s(self) -> float:
        return min(self._probe_max_s, self._probe_first_s * 2.0 ** min(self._probes, _MAX_DOUBLINGS))

    def _close_if_sent_since(self, sent_at: float) -> None:
        if self._opened_at is not None and self._dead is None and sent_at > self._opened_at:
            self._opened_at = None
            self._failures = 0
            self._success_sent_at = max(self._success_sent_at, sent_at)
