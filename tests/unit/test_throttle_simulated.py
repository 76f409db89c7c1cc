"""providers/throttle.py: all limits together against simulated providers."""

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.throttle_builders import FULL, refusal
from transforms.providers.throttle import Throttle


@dataclass
class Provider:
    """A simulated provider with hidden limits: full buckets that refill evenly, and a number of parallel calls."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int | None = None
    latency_s: float = 0.5
    retry_after_s: float | None = None
    active: int = 0
    levels: dict = field(default_factory=dict)

    def takes(self, now, tokens):
        """Tell whether it accepts a call, and account for it."""
        wanted = [(self.requests_per_minute, 1.0), (self.tokens_per_minute, tokens)]
        enough = self.concurrency is None or self.active < self.concurrency
        for place, (limit, amount) in enumerate(wanted):
            if limit is not None:
                at, level = self.levels.get(place, (now, limit))
                self.levels[place] = (now, min(limit, level + (now - at) * limit / 60))
                enough = enough and self.levels[place][1] >= amount
        if enough:
            self.active += 1
            for place, (limit, amount) in enumerate(wanted):
                if limit is not None:
                    self.levels[place] = (now, self.levels[place][1] - amount)
        return enough


@dataclass
class Run:
    """What a simulation saw."""

    sent: list = field(default_factory=list)
    done: list = field(default_factory=list)
    refused: int = 0
    highest: int = 0


def simulate(throttle, provider, calls, rng, now=0.0, tokens=100.0, used=100.0):
    """Push this many calls through, each repeated until it is answered; time is simulated."""
    run = Run()
    todo, ends, order = calls, [], 0
    while todo or ends:
        wait = FULL
        while todo:
            wait = throttle.admit(now, tokens)
            if wait > 0.0:
                break
            assert throttle.concurrency.in_flight <= throttle.concurrency.limit
            run.sent.append(now)
            todo, order = todo - 1, order + 1
            accepted = provider.takes(now, used)
            latency_s = provider.latency_s * rng.uniform(0.7, 1.3) if accepted else 0.02
            heapq.heappush(ends, (now + latency_s, order, now, accepted))
        run.highest = max(run.highest, throttle.concurrency.in_flight)
        ended = ends[0][0] if ends else FULL
        assert min(ended, now + wait) < FULL, "nobody would ever wake the pool"
        now = min(ended, now + wait) if todo else ended
        while ends and ends[0][0] <= now:
            _, _, sent_at, accepted = heapq.heappop(ends)
            error = None if accepted else refusal(provider.retry_after_s)
            provider.active -= accepted
            run.done.extend([now] * accepted)
            run.refused += not accepted
            todo += not accepted
            throttle.settle(now, sent_at, tokens, used if accepted else None, error, None)
    return run


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 200),
    st.none() | st.floats(30, 3000),
    st.none() | st.floats(6000, 300_000),
    st.floats(0.05, 5.0),
    st.integers(0, 2**32),
)
def test_configured_limits_hold_over_every_minute(max_in_flight, rpm, tpm, latency_s, seed):
    """No 60 s see more than the configured requests and tokens plus the burst; all slots come back."""
    throttle = Throttle(max_in_flight, rpm, tpm)
    run = simulate(throttle, Provider(latency_s=latency_s), 400, random.Random(seed))
    first = 0
    for last, at in enumerate(run.sent):
        while at - run.sent[first] >= 60.0:
            first += 1
        count = last - first + 1
        assert rpm is None or count <= rpm + max(1.0, rpm / 6) + 1e-6
        assert tpm is None or count * 100.0 <= tpm + tpm / 6 + 100.0 + 1e-6
    assert run.highest <= max_in_flight
    assert throttle.concurrency.in_flight == 0
    assert run.refused == 0


@pytest.mark.parametrize(
    ("provider", "per_s"),
    [
        pytest.param(Provider(concurrency=20), 40.0, id="20-at-a-time"),
        pytest.param(Provider(concurrency=20, retry_after_s=1.0), 40.0, id="20-at-a-time-with-retry-after"),
        pytest.param(Provider(concurrency=60, latency_s=3.0), 20.0, id="60-slow-ones-at-a-time"),
        pytest.param(Provider(requests_per_minute=1200), 20.0, id="1200-a-minute"),
        pytest.param(Provider(requests_per_minute=1200, retry_after_s=5.0), 20.0, id="1200-a-minute-with-retry-after"),
        pytest.param(Provider(tokens_per_minute=120_000), 20.0, id="120000-tokens-a-minute"),
    ],
)
@pytest.mark.parametrize("max_in_flight", [80, 500])
def test_throughput_recovers_to_a_hidden_limit(provider, per_s, max_in_flight):
    """From too high a start it settles at four fifths or more of what the provider bears, with few refusals."""
    fresh = Provider(**{**provider.__dict__, "levels": {}})
    throttle = Throttle(max_in_flight, None, None)
    run = simulate(throttle, fresh, 8000, random.Random(7))
    half = run.done[len(run.done) // 2 :]
    assert len(half) / (half[-1] - half[0]) >= 0.8 * per_s
    assert run.refused < 0.4 * len(run.done)
    assert throttle.concurrency.in_flight == 0


def test_a_provider_that_recovers_is_used_again():
    """When the hidden limit goes away, the old rate comes back, though not at once."""
    rng = random.Random(3)
    throttle = Throttle(100, None, None)
    run = simulate(throttle, Provider(concurrency=10), 2000, rng)
    assert throttle.concurrency.limit <= 11
    simulate(throttle, Provider(), 60_000, rng, now=run.done[-1])
    assert throttle.concurrency.limit == 100
