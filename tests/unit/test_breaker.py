"""providers/breaker.py: opens on failures in a row, probes, closes or dies."""

import heapq
import random

import pytest

from transforms.providers.breaker import CircuitBreaker, Dead
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError

K = FailureKind
INFRASTRUCTURE = [K.SERVER_ERROR, K.OVERLOADED, K.TIMEOUT, K.CONNECTION_ERROR]


def error(kind):
    """Return an error of this kind."""
    return CallError(kind=kind, message="x")


def opened(at=10.0, give_up_after_s=300.0):
    """Return a breaker that opened at this time on three failures."""
    breaker = CircuitBreaker(3, give_up_after_s)
    for _ in range(3):
        assert breaker.admit(at - 1.0) == 0.0
        breaker.settle(at, at - 1.0, error(K.SERVER_ERROR), 0)
    assert breaker.is_open
    return breaker


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind) for kind in INFRASTRUCTURE])
def test_infrastructure_failures_in_a_row_open_it(kind):
    """The open_after-th failure with no success between holds all sends, not the one before."""
    breaker = CircuitBreaker(3, 300.0)
    for at in (1.0, 2.0):
        breaker.settle(at, at, error(kind), 0)
    assert breaker.admit(2.0) == 0.0
    breaker.settle(3.0, 3.0, error(kind), 0)
    assert breaker.admit(3.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(K.RATE_LIMITED, id="429"),
        pytest.param(K.INVALID_RESPONSE, id="garbage"),
        pytest.param(K.INVALID_REQUEST, id="an-answer"),
        pytest.param(K.CONTENT_FILTERED, id="a-refusal"),
    ],
)
def test_other_errors_never_open_it(kind):
    """What is not the provider's machinery failing is not counted."""
    breaker = CircuitBreaker(1, 300.0)
    for at in range(100):
        breaker.settle(float(at), float(at), error(kind), 0)
    assert breaker.admit(100.0) == 0.0


def test_rate_limits_between_failures_do_not_hide_them():
    """A 429 is no success: failures around it still count as a row."""
    breaker = CircuitBreaker(2, 300.0)
    for at, kind in enumerate([K.SERVER_ERROR, K.RATE_LIMITED, K.SERVER_ERROR]):
        breaker.settle(float(at), float(at), error(kind), 0)
    assert breaker.is_open


def test_probes_go_out_one_at_a_time_at_growing_intervals():
    """While open, one send per interval is allowed, intervals doubling up to the longest."""
    breaker = opened(at=10.0, give_up_after_s=1000.0)
    now, times = 10.0, []
    while len(times) < 8:
        wait = breaker.admit(now)
        if wait == 0.0:
            times.append(now)
            assert breaker.admit(now) > 0.0
            breaker.settle(now + 0.1, now, error(K.CONNECTION_ERROR), 0)
        else:
            now += wait
    gaps = [after - before for before, after in zip([10.0, *times], times, strict=False)]
    assert gaps == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0])


@pytest.mark.parametrize(
    "outcome", [pytest.param(None, id="answer"), pytest.param(error(K.RATE_LIMITED), id="a-429-is-life")]
)
def test_a_probe_that_is_answered_closes_it(outcome):
    """One success sent since the opening lets everything flow again, and the count starts over."""
    breaker = opened(at=10.0)
    assert breaker.admit(11.0) == 0.0
    breaker.settle(11.5, 11.0, outcome, 0)
    assert not breaker.is_open
    assert [breaker.admit(11.5) for _ in range(5)] == [0.0] * 5
    breaker.settle(12.0, 11.5, error(K.TIMEOUT), 0)
    breaker.settle(12.0, 11.5, error(K.TIMEOUT), 0)
    assert breaker.admit(12.0) == 0.0


def test_failures_sent_before_it_opened_extend_nothing():
    """Stragglers of the time before neither delay the probe nor count after the closing."""
    breaker = opened(at=10.0)
    for _ in range(50):
        breaker.settle(10.9, 9.0, error(K.TIMEOUT), 0)
    assert breaker.admit(11.0) == 0.0
    breaker.settle(11.2, 11.0, None, 0)
    for _ in range(50):
        breaker.settle(11.3, 9.5, error(K.TIMEOUT), 0)
    assert breaker.admit(11.3) == 0.0


def test_a_success_sent_before_it_opened_keeps_it_alive_but_does_not_close_it():
    """A late answer is no proof that the provider works now, but restarts the time until it is given up."""
    breaker = opened(at=10.0, give_up_after_s=100.0)
    breaker.settle(50.0, 9.0, None, 0)
    assert breaker.is_open
    assert not isinstance(breaker.admit(149.0), Dead)
    assert isinstance(breaker.admit(150.0), Dead)


def test_it_dies_when_nothing_succeeds_and_stays_dead():
    """give_up_after_s after the opening without a success, the verdict is final."""
    breaker = opened(at=10.0, give_up_after_s=60.0)
    assert not isinstance(breaker.admit(69.9), Dead)
    assert breaker.admit(70.0) == Dead(after_s=60.0)
    breaker.settle(71.0, 69.9, None, 0)
    assert breaker.admit(71.0) == Dead(after_s=60.0)


def test_nobody_is_told_to_wait_beyond_the_end():
    """The wait it names ends at the latest when it dies, so that whoever waits learns of it."""
    breaker = opened(at=10.0, give_up_after_s=2.5)
    assert breaker.admit(11.0) == 0.0
    assert breaker.admit(11.0) == pytest.approx(1.5)


def test_a_probe_that_was_not_sent_is_handed_out_again():
    """unsent() gives the probe back without lengthening the interval; a lost one costs an interval only."""
    breaker = opened(at=10.0)
    for _ in range(20):
        assert breaker.admit(11.0) == 0.0
        breaker.unsent()
    assert breaker.admit(11.0) == 0.0
    assert breaker.admit(11.0) == pytest.approx(2.0)
    assert breaker.admit(13.0) == 0.0


def test_unsent_means_nothing_while_closed():
    """Taking back an ordinary send changes nothing."""
    breaker = CircuitBreaker(3, 300.0)
    breaker.admit(0.0)
    breaker.unsent()
    assert breaker.admit(0.0) == 0.0


def test_failures_that_overtake_answers_do_not_open_it():
    """With 200 calls out, 199 quick failures prove nothing yet; as many as are out do."""
    breaker = CircuitBreaker(25, 300.0)
    for _ in range(199):
        breaker.settle(0.1, 0.0, error(K.SERVER_ERROR), 200)
    assert not breaker.is_open
    breaker.settle(0.1, 0.0, error(K.SERVER_ERROR), 200)
    assert breaker.is_open


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "fails_after_s",
    [pytest.param(0.001, id="at-once"), pytest.param(0.5, id="like-answers"), pytest.param(60.0, id="by-hanging")],
)
def test_a_provider_that_fails_every_fifth_time_never_opens_it(seed, fails_after_s):
    """20 % failures, at random, quick or by hanging until the time-out, with 200 in flight: it stays closed."""
    rng = random.Random(seed)
    breaker = CircuitBreaker(25, 300.0)
    in_flight, left, now = [], 6_000, 0.0
    while left or in_flight:
        while left and len(in_flight) < 200:
            assert breaker.admit(now) == 0.0
            failed = rng.random() < 0.2
            heapq.heappush(in_flight, (now + (fails_after_s if failed else rng.uniform(0.3, 0.7)), left, now, failed))
            left -= 1
        now, _, sent_at, failed = heapq.heappop(in_flight)
        breaker.settle(now, sent_at, error(K.TIMEOUT) if failed else None, len(in_flight))
        assert not breaker.is_open
