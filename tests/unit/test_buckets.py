"""providers/buckets.py: a per-minute limit that is reserved before and settled after."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.providers.buckets import Bucket


def send(bucket, now, amount):
    """Wait as told, then take; return when the amount went out."""
    for _ in range(100):
        wait = bucket.wait(now, amount)
        if wait == 0.0:
            bucket.take(amount)
            return now
        now += wait
    raise AssertionError("the bucket never lets it out")


def test_a_small_job_is_not_delayed():
    """What fits ten seconds' worth goes out at once."""
    bucket = Bucket(600)
    assert [send(bucket, 0.0, 1.0) for _ in range(100)] == [0.0] * 100


def test_a_long_job_is_spread_at_the_configured_rate():
    """After the burst, one request leaves every 60/limit seconds."""
    bucket = Bucket(60)
    now, times = 0.0, []
    for _ in range(13):
        now = send(bucket, now, 1.0)
        times.append(now)
    assert times[9] == 0.0
    assert times[10:] == pytest.approx([1.0, 2.0, 3.0])


def test_wait_takes_nothing():
    """Asking does not reserve."""
    bucket = Bucket(6)
    assert [bucket.wait(0.0, 1.0) for _ in range(5)] == [0.0] * 5


def test_an_idle_bucket_saves_up_no_more_than_its_burst():
    """An hour of silence does not allow an hour's worth at once."""
    bucket = Bucket(60)
    bucket.wait(0.0, 1.0)
    for _ in range(10):
        assert bucket.wait(3600.0, 1.0) == 0.0
        bucket.take(1.0)
    assert bucket.wait(3600.0, 1.0) == pytest.approx(1.0)


def test_unused_reservations_come_back_and_excess_is_charged():
    """Settling with less than reserved refunds, with more than reserved goes below zero."""
    bucket = Bucket(6000)
    send(bucket, 0.0, 1000.0)
    assert bucket.wait(0.0, 500.0) == pytest.approx(5.0)
    bucket.settle(1000.0, 400.0)
    assert bucket.wait(0.0, 500.0) == 0.0
    bucket.settle(0.0, 700.0)
    assert bucket.level == pytest.approx(-100.0)
    assert bucket.wait(0.0, 500.0) == pytest.approx(6.0)


def test_a_request_above_the_burst_goes_out_and_is_paid_off():
    """One that is larger than the burst waits for a full bucket, not for ever."""
    bucket = Bucket(600, burst=100)
    assert send(bucket, 0.0, 500.0) == 0.0
    assert bucket.level == pytest.approx(-400.0)
    assert send(bucket, 0.0, 500.0) == pytest.approx(50.0)


def test_without_a_limit_nothing_waits():
    """An unconfigured bucket lets everything out until a header says otherwise."""
    bucket = Bucket(None)
    assert [send(bucket, 0.0, 1e9) for _ in range(3)] == [0.0] * 3
    assert bucket.capacity_per_minute is None


@pytest.mark.parametrize("capacity", [pytest.param(None, id="unconfigured"), pytest.param(6000, id="configured")])
def test_an_empty_server_bucket_holds_until_its_reset(capacity):
    """No remaining requests stop sending until the server's reset, and then no longer."""
    bucket = Bucket(capacity)
    bucket.observe(10.0, limit=6000, remaining=0, reset_s=4.0)
    assert bucket.wait(11.0, 1.0) == pytest.approx(3.0)
    assert bucket.wait(14.0, 1.0) == 0.0


def test_too_few_remaining_tokens_hold_too():
    """What is left counts against what the next call needs."""
    bucket = Bucket(None)
    bucket.observe(0.0, limit=100_000, remaining=400, reset_s=2.0, need=500.0)
    assert bucket.wait(0.0, 500.0) == pytest.approx(2.0)
    bucket.observe(2.0, limit=100_000, remaining=500, reset_s=60.0, need=500.0)
    assert bucket.wait(2.0, 500.0) == 0.0


@pytest.mark.parametrize(
    ("limit", "remaining", "reset_s"),
    [
        pytest.param(-1, -1, 30.0, id="azure-minus-one"),
        pytest.param(0, 0, 30.0, id="azure-zero"),
        pytest.param(-1, 0, 30.0, id="azure-unknown-limit"),
        pytest.param(None, -1, 30.0, id="negative-remaining"),
        pytest.param(None, None, None, id="silent"),
        pytest.param(6000, 0, None, id="no-reset"),
    ],
)
def test_unknown_values_teach_nothing(limit, remaining, reset_s):
    """Headers that say 'unknown' neither hold nor resize the bucket."""
    bucket = Bucket(600)
    bucket.observe(0.0, limit, remaining, reset_s)
    assert bucket.wait(0.0, 1.0) == 0.0
    assert bucket.capacity_per_minute == 600


def test_a_servers_limit_clamps_downwards_only():
    """A lower limit of the server counts while it lasts; a higher one never exceeds the configuration."""
    bucket = Bucket(600)
    bucket.observe(0.0, limit=60, remaining=59, reset_s=1.0)
    assert bucket.capacity_per_minute == pytest.approx(60)
    assert bucket.level <= 10.0
    bucket.observe(1.0, limit=10_000, remaining=9_999, reset_s=1.0)
    assert bucket.capacity_per_minute == pytest.approx(600)
    assert bucket.level <= 10.0


def test_a_daily_reset_is_looked_at_again_after_a_minute():
    """A reset hours away (a daily limit) does not stop the run without another look."""
    bucket = Bucket(None)
    bucket.observe(0.0, limit=1000, remaining=0, reset_s=40_000.0)
    assert bucket.wait(0.0, 1.0) == pytest.approx(60.0)


@settings(deadline=None)
@given(
    st.floats(1.0, 10_000.0),
    st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.1, 300.0)), min_size=1, max_size=200),
)
def test_no_minute_lets_out_more_than_the_limit_and_the_burst(capacity, arrivals):
    """Over any window of 60 s the sum is at most capacity + max(burst, largest amount), whatever arrives when."""
    bucket = Bucket(capacity)
    now, sent = 0.0, []
    for gap, amount in arrivals:
        now = send(bucket, now + gap, amount)
        sent.append((now, amount))
    slack = max(1.0, capacity / 6, *(amount for _, amount in sent))
    for start, _ in sent:
        total = sum(amount for at, amount in sent if start <= at < start + 60.0)
        assert total <= capacity + slack + 1e-3


@settings(deadline=None)
@given(
    st.floats(1.0, 1000.0),
    st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(1.0, 50.0), st.floats(0.0, 2.0)), min_size=1, max_size=100),
)
def test_what_is_really_used_stays_within_the_limit_when_settled_at_once(capacity, calls):
    """With settled reservations the used sum of the whole run is at most rate x time + burst + one overshoot."""
    bucket = Bucket(capacity)
    now, used = 0.0, 0.0
    largest = 0.0
    for gap, reserved, share in calls:
        now = send(bucket, now + gap, reserved)
        bucket.settle(reserved, reserved * share)
        used += reserved * share
        largest = max(largest, reserved * max(1.0, share))
    assert used <= capacity / 60 * now + max(1.0, capacity / 6) + largest + 1e-3
