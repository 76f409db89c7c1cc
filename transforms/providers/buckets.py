"""A token bucket for a per-minute limit: reserve before the call, settle after it, learn from response headers.

Synchronous, for one thread; `now` is monotonic seconds and never goes back. Every call is O(1).

Guarantee: over any window of 60 s no more than `capacity_per_minute + max(burst, largest amount)` is let out.
Providers enforce minute limits over windows of 1 to 10 s (providers.md 3.6), so the bucket holds a tenth of
a minute's worth and not a minute's: a job smaller than that is not delayed at all, a longer one is spread evenly.
"""

#: Seconds of capacity that may go out at once.
_BURST_S = 10.0

#: A hold longer than this is a daily limit or a clock that is off; look again after it.
_MAX_HOLD_S = 60.0

#: Rounding in level += rate * dt must not turn a wait that has passed into another tiny one.
_EPSILON = 1e-6


class Bucket:
    """One per-minute limit, configured or not, or this process's part of it.

    Args:
        capacity_per_minute: the configured limit; None for none, then only the server's headers can hold it.
        burst: what may go out at once; None takes 10 s of the capacity, at least 1.
    """

    __slots__ = (
        "_at",
        "_burst",
        "_capacity",
        "_configured",
        "_configured_burst",
        "_hold_until",
        "_level",
        "_part",
        "_rate",
    )

    def __init__(self, capacity_per_minute: float | None, burst: float | None = None) -> None:
        self._configured = capacity_per_minute
        self._configured_burst = burst
        self._capacity = capacity_per_minute or 0.0
        self._part = 1.0
        self._at = float("-inf")
        self._hold_until = float("-inf")
        self._resize()
        self._level = self._burst

    @property
    def capacity_per_minute(self) -> float | None:
        """The limit in force: the part of the configured one, or of a lower one the server named; None for none."""
        return None if self._configured is None else self._rate * 60.0

    @property
    def level(self) -> float:
        """What may go out at the time of the last call; negative after an underestimate."""
        return self._level

    def wait(self, now: float, amount: float) -> float:
        """Return seconds until `amount` may go out, 0.0 for now; takes nothing.

        An amount above the burst goes out when the bucket is full, and is paid off afterwards.
        """
        if now < self._hold_until:
            return self._hold_until - now
        if self._configured is None:
            return 0.0
        if now > self._at:
            self._refill(now)
        missing = min(self._burst, amount) - self._level
        return missing / self._rate if missing > _EPSILON else 0.0

    def take(self, amount: float) -> None:
        """Reserve `amount`, right after wait() gave 0.0 for it."""
        if self._configured is not None:
            self._level -= amount

    def settle(self, reserved: float, actual: float) -> None:
        """Replace a reservation by what was really used: the rest comes back, an excess is charged."""
        if self._configured is not None:
            self._level = min(self._burst, self._level + reserved - actual)

    def share(self, now: float, part: float, *, is_full: bool = False) -> None:
        """Let out only this part of the limit from now on; what the other parts may let out is others' business.

        What was saved up beyond the part's own burst is lost, so that nobody saves for two; debts stay. Nothing may be taken
        while the part is 0.

        Args:
            now: monotonic seconds.
            part: 0 to 1.
            is_full: nothing of the whole limit has been used yet.
        """
        if self._configured is None:
            return
        self._refill(now)
        self._part = part
        self._resize()
        self._level = self._burst if is_full else min(self._level, self._burst if part else 0.0)

    def observe(
        self, now: float, limit: int | None, remaining: int | None, reset_s: float | None, need: float = 1.0
    ) -> None:
        """Learn from rate-limit headers; they can slow the bucket down, never raise it above the configuration.

        Args:
            now: monotonic seconds.
            limit: the server's limit; 0 and below mean that it does not know (Azure), and nothing is learnt.
            remaining: what is left; below `need` holds the bucket until the reset.
            reset_s: seconds from now until the server's bucket is full again.
            need: what the next call will ask for.
        """
        if limit is not None:
            if limit <= 0:
                return
            if self._configured is not None and (capacity := min(self._configured, limit)) != self._capacity:
                self._capacity = capacity
                self._resize()
                self._level = min(self._level, self._burst)
        if remaining is not None and reset_s is not None and 0 <= remaining < need:
            self._hold_until = max(self._hold_until, now + min(reset_s, _MAX_HOLD_S))

    def _refill(self, now: float) -> None:
        if self._at != float("-inf"):
            self._level = min(self._burst, self._level + self._rate * (now - self._at))
        self._at = now

    def _resize(self) -> None:
        self._rate = self._capacity * self._part / 60.0
        burst = max(1.0, self._rate * _BURST_S)
        self._burst = burst if self._configured_burst is None else min(burst, self._configured_burst)
