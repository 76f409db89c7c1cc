"""How much may be in flight, and how fast it may go out: an adaptive limit and two token buckets in one.

Synchronous, for one thread; `now` is monotonic seconds and never goes back. Every call is O(1), about a microsecond.

The adaptive limit is additive increase, multiplicative decrease with a memory, after Data Designer (peers.md
section 2). Its two rules against over-reaction: the refusals of one burst are counted once, told by the time their
requests were *sent*; and the limit at which the last burst came is a ceiling that is not tried again for a while.
"""

from transforms.providers.buckets import Bucket
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, RateLimits

_PRESSURE = frozenset({FailureKind.RATE_LIMITED, FailureKind.OVERLOADED})

_CUT = 0.75
#: Clean successes that add one to the limit; the limit then grows by its own size in 25 round trips.
_SUCCESSES_PER_STEP = 25
#: Wait after a burst whose refusals name none; doubles with each burst in which nothing succeeds.
_BLOCK_S = 2.0
_BLOCK_DOUBLINGS = 5
#: A server that asks for more is asked again after this.
_MAX_BLOCK_S = 300.0
#: Refusals without an answer between them that say the provider is under pressure (fewer at a lower limit).
_PRESSURE_IN_A_ROW = 3
#: Stands for a refusal that teaches the adaptive limit nothing.
_HICCUP = CallError(FailureKind.SERVER_ERROR, "a lone refusal")
#: Seconds without pressure after which the ceiling is raised, and how far and how often it then is.
_CLEAN_S = 60.0
_CEILING_STEP_S = 10.0
_CEILING_GROWTH = 1.1


class AdaptiveLimit:
    """A limit on calls in flight that finds what the provider bears; starts at, and never exceeds, max_in_flight."""

    __slots__ = (
        "_bursts",
        "_ceiling_at",
        "_cut_at",
        "_max",
        "_previous_cut_at",
        "_successes",
        "_whole",
        "blocked_until",
        "ceiling",
        "in_flight",
        "limit",
    )

    def __init__(self, max_in_flight: int) -> None:
        self._whole = max_in_flight
        self._max = max_in_flight
        #: Calls that may be in flight now; after a cut, more may still be.
        self.limit = max_in_flight
        #: Calls admitted and not yet released.
        self.in_flight = 0
        #: Growth stops here until the provider has been quiet for long.
        self.ceiling = max_in_flight
        #: Nothing is admitted before this time.
        self.blocked_until = float("-inf")
        self._cut_at = float("-inf")
        self._previous_cut_at = float("-inf")
        self._ceiling_at = float("-inf")
        self._successes = 0
        self._bursts = 0

    def resize(self, max_in_flight: int) -> None:
        """Set another upper bound, at least 1 and at most the first; what was learnt from the provider is kept."""
        most = min(max_in_flight, self._whole)
        # A limit that the provider had not lowered follows its bound; one that it had comes back by its answers.
        was_free = self.limit >= min(self._max, self.ceiling)
        self._max = most
        self.limit = min(most, self.ceiling if was_free else self.limit)

    def try_acquire(self, now: float) -> float:
        """Take a slot and return 0.0; else return seconds to wait, inf meaning until the next release."""
        if now < self.blocked_until:
            return self.blocked_until - now
        if self.in_flight >= self.limit:
            return float("inf")
        self.in_flight += 1
        return 0.0

    def release(self, now: float, sent_at: float, outcome: CallError | None) -> None:
        """Give a slot back and learn from how its call ended.

        Args:
            now: monotonic seconds.
            sent_at: when the call was sent, on the same clock.
            outcome: the error, or None for an answer. Errors other than pressure teach nothing.

        Raises:
            InternalError: there is no slot to give back.
        """
        if self.in_flight <= 0:
            raise InternalError("a call was released that the throttle had not admitted")
        self.in_flight -= 1
        if outcome is None:
            if sent_at > self._previous_cut_at:
                self._bursts = 0
            if sent_at > self._cut_at:
                self._count_success(now)
        elif outcome.kind in _PRESSURE:
            self._feel_pressure(now, sent_at, outcome.retry_after_s)

    def _count_success(self, now: float) -> None:
        if self.limit >= self._max:
            return
        self._successes += 1
        if self._successes < _SUCCESSES_PER_STEP:
            return
        self._successes = 0
        if self.limit >= self.ceiling and now >= self._ceiling_at:
            self.ceiling = min(self._whole, max(self.ceiling + 1, int(self.ceiling * _CEILING_GROWTH)))
            self._ceiling_at = now + _CEILING_STEP_S
        if self.limit < self.ceiling:
            self.limit += 1

    def _feel_pressure(self, now: float, sent_at: float, retry_after_s: float | None) -> None:
        self._successes = 0
        self._ceiling_at = now + _CLEAN_S
        block_s = retry_after_s
        if sent_at > self._cut_at:
            if block_s is None:
                block_s = _BLOCK_S * 2.0 ** min(self._bursts, _BLOCK_DOUBLINGS)
            self._bursts += 1
            self._previous_cut_at, self._cut_at = self._cut_at, now
            self.ceiling = max(1, self.limit - 1)
            self.limit = max(1, int(self.limit * _CUT))
        if block_s is not None:
            self.blocked_until = max(self.blocked_until, now + min(block_s, _MAX_BLOCK_S))


class Throttle:
    """Admits calls by slots, requests per minute and tokens per minute, all or nothing.

    Every admit() that gave 0.0 is followed by exactly one settle(), however the call ends, or by cancel().

    Args:
        max_in_flight: upper bound of the adaptive limit.
        requests_per_minute: configured limit, or None.
        tokens_per_minute: configured limit, or None.
    """

    __slots__ = ("_pressure_in_a_row", "concurrency", "requests", "tokens")

    def __init__(self, max_in_flight: int, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self.concurrency = AdaptiveLimit(max_in_flight)
        self.requests = Bucket(requests_per_minute)
        self.tokens = Bucket(tokens_per_minute)
        self._pressure_in_a_row = 0

    def share(self, now: float, part: float, max_in_flight: int, *, is_full: bool = False) -> None:
        """Admit only a part of the limits from now on; see `Bucket.share`. Part 0: nothing may be admitted.

        Args:
            now: monotonic seconds.
            part: of requests and tokens a minute, 0 to 1.
            max_in_flight: calls at a time.
            is_full: nothing of the limits has been used yet.
        """
        self.concurrency.resize(max(1, max_in_flight))
        self.requests.share(now, part, is_full=is_full)
        self.tokens.share(now, part, is_full=is_full)

    def cancel(self, tokens: float) -> None:
        """Take an admission back, instead of settling it: nothing was sent."""
        self.concurrency.in_flight -= 1
        self.requests.settle(1.0, 0.0)
        self.tokens.settle(tokens, 0.0)

    def admit(self, now: float, tokens: float) -> float:
        """Reserve a slot, a request and `tokens`, and return 0.0; else reserve nothing and return seconds to wait.

        inf means that the next settle() is the time to ask again.
        """
        wait = max(self.requests.wait(now, 1.0), self.tokens.wait(now, tokens))
        if wait > 0.0:
            return wait
        wait = self.concurrency.try_acquire(now)
        if wait > 0.0:
            return wait
        self.requests.take(1.0)
        self.tokens.take(tokens)
        return 0.0

    def settle(
        self,
        now: float,
        sent_at: float,
        reserved_tokens: float,
        used_tokens: float | None,
        error: CallError | None,
        limits: RateLimits | None,
    ) -> None:
        """Give the slot back, correct the token reservation, and learn from the response.

        Tokens of a call without usage stay reserved when it may have been run, and come back when it was refused;
        a request counts in any case, since providers count refused ones too (providers.md 2.6).
        """
        self.concurrency.release(now, sent_at, _HICCUP if self._is_hiccup(error) else error)
        if used_tokens is None:
            used_tokens = reserved_tokens if error is None or error.may_be_billed else 0.0
        self.tokens.settle(reserved_tokens, used_tokens)
        if limits is not None:
            self.requests.observe(now, limits.limit_requests, limits.remaining_requests, limits.reset_requests_s)
            need = max(1.0, reserved_tokens)
            self.tokens.observe(now, limits.limit_tokens, limits.remaining_tokens, limits.reset_tokens_s, need)

    def _is_hiccup(self, error: CallError | None) -> bool:
        """Say whether a refusal is a lone one among answers: then its request waits, and the others need not.

        A limit that is really reached refuses many calls at once, and no answer comes between.
        """
        if error is None:
            self._pressure_in_a_row = 0
            return False
        if error.kind not in _PRESSURE:
            return False
        self._pressure_in_a_row += 1
        return self._pressure_in_a_row < min(_PRESSURE_IN_A_ROW, self.concurrency.limit)
