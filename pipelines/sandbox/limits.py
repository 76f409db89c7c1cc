"""Rate limits as token buckets that fill continuously; pure, the clock is an argument."""

import math
from dataclasses import dataclass


class Bucket:
    """Holds at most `capacity` units and gains `rate_s` of them a second; starts full."""

    __slots__ = ("_level", "_then_s", "capacity", "rate_s")

    def __init__(self, capacity: float, rate_s: float, now_s: float) -> None:
        self.capacity = capacity
        self.rate_s = rate_s
        self._level = capacity
        self._then_s = now_s

    def level(self, now_s: float) -> float:
        """Return what the bucket holds now."""
        self._level = min(self.capacity, self._level + (now_s - self._then_s) * self.rate_s)
        self._then_s = now_s
        return self._level

    def wait_s(self, amount: float, now_s: float) -> float:
        """Return how long it takes until `amount` is there (0 when it is; inf when it never fits)."""
        if amount > self.capacity:
            return math.inf
        return max(0.0, (amount - self.level(now_s)) / self.rate_s)

    def take(self, amount: float) -> None:
        """Take what `wait_s` has just found to be there."""
        self._level -= amount

    def full_in_s(self, now_s: float) -> float:
        """Return the seconds until the bucket is full again."""
        return (self.capacity - self.level(now_s)) / self.rate_s


@dataclass(frozen=True, slots=True)
class Gauge:
    """One limit as the headers show it: units per minute, what is left, seconds until all is back."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the limiter says of one request.

    Attributes:
        wait_s: 0 when the request passes; else the seconds until it would.
        requests, tokens: the gauges for the headers; None where there is no such limit.
    """

    wait_s: float
    requests: Gauge | None
    tokens: Gauge | None


class Limiter:
    """The limits of one model: requests per minute, tokens per minute, or both.

    A request is admitted only when both buckets have room, and takes from both; a refused one takes nothing.

    Args:
        requests_per_minute, tokens_per_minute: the limits; None for none.
        window_s: how many seconds of the limit may be spent at once (a minute's worth; Azure 10 s, providers.md 3.6).
    """

    def __init__(
        self, requests_per_minute: int | None, tokens_per_minute: int | None, window_s: float, now_s: float
    ) -> None:
        self._requests = _bucket(requests_per_minute, window_s, now_s)
        # Tokens are counted over the whole minute everywhere: a single long prompt must fit.
        self._tokens = _bucket(tokens_per_minute, 60.0, now_s)
        self._limits = requests_per_minute or 0, tokens_per_minute or 0

    def admit(self, tokens: int, now_s: float) -> Verdict:
        """Take one request of so many tokens, or say how long it must wait."""
        pairs = [(bucket, need) for bucket, need in ((self._requests, 1), (self._tokens, tokens)) if bucket]
        wait_s = max((bucket.wait_s(need, now_s) for bucket, need in pairs), default=0.0)
        if wait_s == 0:
            for bucket, need in pairs:
                bucket.take(need)
        return Verdict(
            wait_s, _gauge(self._requests, self._limits[0], now_s), _gauge(self._tokens, self._limits[1], now_s)
        )


def _bucket(per_minute: int | None, window_s: float, now_s: float) -> Bucket | None:
    if per_minute is None:
        return None
    return Bucket(max(1.0, per_minute * window_s / 60), per_minute / 60, now_s)


def _gauge(bucket: Bucket | None, limit: int, now_s: float) -> Gauge | None:
    return Gauge(limit, int(bucket.level(now_s)), bucket.full_in_s(now_s)) if bucket else None


def go_duration(seconds: float) -> str:
    """Return seconds the way OpenAI writes a reset: 12ms, 1s, 59.7s, 6m0s (providers.md 2.6)."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    minutes, rest = divmod(math.ceil(seconds * 1000) / 1000, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or hours else "") + text
