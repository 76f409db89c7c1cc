"""providers/throttle.py: the adaptive limit, and all limits together against simulated providers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.throttle_builders import FULL, K, refusal
from transforms.providers.throttle import AdaptiveLimit, Throttle
from transforms.records.errors import InternalError
from transforms.records.reply import CallError, RateLimits


def full(max_in_flight, now=0.0):
    """Return a limit with every slot taken at this time."""
    limit = AdaptiveLimit(max_in_flight)
    fill(limit, now)
    return limit


def fill(limit, now):
    """Take every free slot and return how many there were."""
    taken = 0
    while limit.try_acquire(now) == 0.0:
        taken += 1
    return taken


def succeed(limit, times, now):
    """Make calls one after another that all succeed."""
    for _ in range(times):
        assert limit.try_acquire(now) == 0.0
        limit.release(now + 0.001, now, None)


# -- the adaptive limit ----------------------------------------------------------------------------------------------


def test_it_starts_at_the_configured_limit_and_waits_for_a_release():
    """All slots go out at once; the next one waits for a release, not for a time."""
    limit = AdaptiveLimit(10)
    assert fill(limit, 0.0) == 10
    assert limit.try_acquire(0.0) == FULL
    limit.release(1.0, 0.0, None)
    assert limit.try_acquire(1.0) == 0.0


def test_a_burst_is_counted_once():
    """Of a hundred refusals of calls sent together, the first cuts; the others only free their slots."""
    limit = full(100)
    for _ in range(100):
        limit.release(1.0, 0.0, refusal())
    assert (limit.limit, limit.in_flight, limit.ceiling) == (75, 0, 99)
    assert limit.blocked_until == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("before", "after"),
    [pytest.param(4, 3, id="4"), pytest.param(2, 1, id="2"), pytest.param(1, 1, id="never-below-1")],
)
def test_a_cut_has_a_floor(before, after):
    """Three quarters, rounded down, and at least one."""
    limit = full(before)
    limit.release(1.0, 0.0, refusal())
    assert limit.limit == after


@pytest.mark.parametrize(
    ("error", "blocked_s"),
    [
        pytest.param(refusal(7.5), 7.5, id="retry-after"),
        pytest.param(refusal(0.0), 0.0, id="retry-at-once"),
        pytest.param(refusal(86_400.0), 300.0, id="a-day-is-looked-at-again"),
        pytest.param(refusal(), 2.0, id="silent"),
        pytest.param(refusal(kind=K.OVERLOADED), 2.0, id="overloaded"),
    ],
)
def test_a_burst_blocks_the_domain(error, blocked_s):
    """Nothing is admitted until the server's time has passed, else two seconds; then it is."""
    limit = full(8)
    limit.release(1.0, 0.0, error)
    if blocked_s:
        assert limit.try_acquire(1.0) == pytest.approx(blocked_s)
    for _ in range(7):
        limit.release(1.0, 0.0, None)
    assert limit.try_acquire(1.0 + blocked_s) == 0.0


def test_a_later_refusal_of_the_burst_can_only_prolong_the_block():
    """The longest Retry-After of a burst counts, whichever comes first."""
    limit = full(8)
    for retry_after_s in (3.0, 10.0, 1.0, None):
        limit.release(1.0, 0.0, refusal(retry_after_s))
    assert limit.blocked_until == pytest.approx(11.0)
    assert limit.limit == 6


def test_blocks_grow_while_nothing_succeeds_between_bursts():
    """2, 4, 8 ... 64 s, and 2 s again after a success."""
    limit = AdaptiveLimit(1)
    now, blocks = 0.0, []
    for _ in range(7):
        assert limit.try_acquire(now) == 0.0
        limit.release(now + 0.5, now, refusal())
        blocks.append(limit.try_acquire(now + 0.5))
        now += 0.5 + blocks[-1]
    assert blocks == pytest.approx([2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0])
    succeed(limit, 1, now)
    now += 1.0
    limit.try_acquire(now)
    limit.release(now + 0.5, now, refusal())
    assert limit.try_acquire(now + 0.5) == pytest.approx(2.0)


def test_twenty_five_clean_successes_add_one_up_to_the_ceiling():
    """Growth stops one step below where the last burst came."""
    limit = full(8)
    for _ in range(8):
        limit.release(1.0, 0.0, refusal(0.0))
    assert (limit.limit, limit.ceiling) == (6, 7)
    succeed(limit, 24, 2.0)
    assert limit.limit == 6
    succeed(limit, 1, 2.0)
    assert limit.limit == 7
    succeed(limit, 500, 3.0)
    assert limit.limit == 7


def test_successes_sent_before_the_cut_do_not_raise_the_limit():
    """What was under way when the burst came says nothing about the new limit."""
    limit = full(100)
    limit.release(1.0, 0.0, refusal())
    for _ in range(99):
        limit.release(1.5, 0.0, None)
    assert limit.limit == 75


@pytest.mark.parametrize("kind", [pytest.param(k, id=k) for k in (K.SERVER_ERROR, K.TIMEOUT, K.INVALID_REQUEST)])
def test_other_errors_teach_nothing(kind):
    """They free their slot, and neither cut nor count as clean."""
    limit = full(8)
    for _ in range(8):
        limit.release(1.0, 0.0, refusal(0.0))
    for _ in range(100):
        limit.try_acquire(2.0)
        limit.release(2.5, 2.0, refusal(kind=kind))
    assert (limit.limit, limit.in_flight) == (6, 0)


def test_the_ceiling_is_forgotten_gradually_after_a_clean_minute():
    """Above the ceiling it probes a tenth at a time, every ten seconds, back to the configured limit at most."""
    limit = full(100)
    for _ in range(100):
        limit.release(0.0, 0.0, refusal(0.0))
    for _ in range(100):
        limit.try_acquire(1.0)
    limit.release(1.0, 1.0, refusal(0.0))
    for _ in range(limit.in_flight):
        limit.release(1.0, 1.0, None)
    assert (limit.limit, limit.ceiling) == (56, 74)
    succeed(limit, 2000, 60.9)
    assert (limit.limit, limit.ceiling) == (74, 74)
    succeed(limit, 2000, 61.1)
    assert (limit.limit, limit.ceiling) == (81, 81)
    succeed(limit, 2000, 71.2)
    assert (limit.limit, limit.ceiling) == (89, 89)
    succeed(limit, 2000, 81.3)
    succeed(limit, 2000, 91.4)
    succeed(limit, 2000, 101.5)
    assert (limit.limit, limit.ceiling) == (100, 100)


def test_a_release_without_a_slot_is_an_internal_error():
    """A call that is settled twice is found at once."""
    limit = AdaptiveLimit(1)
    with pytest.raises(InternalError):
        limit.release(0.0, 0.0, None)


outcomes = st.sampled_from(
    [None, None, None, refusal(), refusal(1.0), refusal(kind=K.OVERLOADED), refusal(kind=K.TIMEOUT)]
)


@settings(deadline=None)
@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0.0, 5.0), st.booleans(), outcomes), max_size=300))
def test_slots_are_never_lost_nor_exceeded(max_in_flight, steps):
    """Whatever order calls start and end in: 1 <= limit <= max, no admission at or above the limit, all slots back."""
    limit = AdaptiveLimit(max_in_flight)
    now, out = 0.0, []
    for gap, start, outcome in steps:
        now += gap
        if start:
            before = limit.in_flight
            if limit.try_acquire(now) == 0.0:
                assert before < limit.limit
                assert now >= limit.blocked_until
                out.append(now)
        elif out:
            limit.release(now, out.pop(0), outcome)
        assert 1 <= limit.limit <= max_in_flight
        assert 1 <= limit.ceiling <= max_in_flight
        assert limit.in_flight == len(out)
    for sent_at in out:
        limit.release(now, sent_at, None)
    assert limit.in_flight == 0


# -- everything together ---------------------------------------------------------------------------------------------


def test_admission_is_all_or_nothing():
    """A call that lacks tokens takes neither slot nor request; one that lacks a slot takes neither request nor tokens."""
    throttle = Throttle(1, 60, 6000)
    assert throttle.admit(0.0, 900.0) == 0.0
    assert throttle.admit(0.0, 200.0) == pytest.approx(1.0)
    assert throttle.admit(0.0, 50.0) == FULL
    assert (throttle.concurrency.in_flight, throttle.requests.level, throttle.tokens.level) == (1, 9.0, 100.0)


@pytest.mark.parametrize(
    ("used", "error", "level"),
    [
        pytest.param(150.0, None, 850.0, id="usage-known"),
        pytest.param(1200.0, None, -200.0, id="usage-above-the-estimate"),
        pytest.param(None, None, 500.0, id="usage-unknown"),
        pytest.param(None, refusal(), 1000.0, id="refused"),
        pytest.param(None, CallError(K.TIMEOUT, "x", may_be_billed=True), 500.0, id="perhaps-run"),
        pytest.param(None, CallError(K.CONNECTION_ERROR, "x"), 1000.0, id="never-arrived"),
        pytest.param(80.0, CallError(K.SERVER_ERROR, "x", may_be_billed=True), 920.0, id="error-with-usage"),
    ],
)
def test_tokens_are_settled_on_what_was_used(used, error, level):
    """The reservation is replaced by the usage; without usage it stays only if the call may have been run."""
    throttle = Throttle(10, 60, 6000)
    throttle.admit(0.0, 500.0)
    throttle.settle(1.0, 0.0, 500.0, used, error, None)
    assert throttle.tokens.level == pytest.approx(level)
    assert throttle.requests.level == pytest.approx(9.0)


def test_headers_reach_their_buckets():
    """Exhausted tokens in a response hold the next call until the reset."""
    throttle = Throttle(10, None, None)
    throttle.admit(0.0, 0.0)
    headers = RateLimits(
        limit_requests=100, remaining_requests=99, limit_tokens=5000, remaining_tokens=0, reset_tokens_s=3
    )
    throttle.settle(1.0, 0.0, 0.0, None, None, headers)
    assert throttle.admit(1.5, 0.0) == pytest.approx(2.5)
