"""providers/buckets.py and throttle.py when they hold a part of a limit, and the part changes."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.throttle_builders import refusal
from transforms.providers.buckets import Bucket
from transforms.providers.throttle import AdaptiveLimit, Throttle


def sent_by(buckets, now):
    """Take all that may go out now, one at a time; return how much."""
    count = 0
    for bucket, part in buckets:
        while part and bucket.wait(now, 1.0) == 0.0:
            bucket.take(1.0)
            count += 1
    return count


@hypothesis_settings(deadline=None)
@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0.1, 30.0), st.lists(st.integers(0, 5), min_size=4, max_size=4)), max_size=25),
)
def test_the_parts_of_a_limit_let_out_no_more_than_the_whole(units, changes):
    """However the parts change hands: what one saves up is lost with its part, and nobody earns for two."""
    capacity = units * 6
    buckets = [Bucket(capacity) for _ in range(4)]
    parts = [1.0, 0.0, 0.0, 0.0]
    for number, bucket in enumerate(buckets):
        bucket.share(0.0, parts[number], is_full=number == 0)
    now, sent = 0.0, [(0.0, sent_by(zip(buckets, parts, strict=True), 0.0))]
    for wait_s, wanted in changes:
        now += wait_s
        sent.append((now, sent_by(zip(buckets, parts, strict=True), now)))
        # Whole units, as in rules/shares.py; cuts come before what they make room for.
        left, whole = units, []
        for want in wanted:
            whole.append(min(want, left))
            left -= whole[-1]
        parts = [each / units for each in whole]
        for number, bucket in enumerate(buckets):
            bucket.share(now, parts[number])
        sent.append((now, sent_by(zip(buckets, parts, strict=True), now)))
    for start, _ in sent:
        total = sum(count for at, count in sent if start <= at < start + 60.0)
        assert total <= capacity + max(1.0, capacity / 6) + 1e-3


def test_a_part_lets_out_its_part_of_the_rate():
    """A quarter of sixty a minute is one every four seconds; a newcomer has saved nothing."""
    bucket = Bucket(60)
    bucket.share(0.0, 0.25)
    bucket.wait(0.0, 1.0)
    for _ in range(2):
        bucket.take(1.0)
    assert bucket.wait(0.0, 1.0) == pytest.approx(2.0)
    assert bucket.capacity_per_minute == pytest.approx(15.0)
    newcomer = Bucket(60)
    newcomer.share(0.0, 0.0)
    newcomer.share(5.0, 0.25)
    assert newcomer.wait(5.0, 1.0) == pytest.approx(4.0)


def test_a_servers_lower_limit_is_shared_too():
    """It is of the whole account, so each has its part of it."""
    bucket = Bucket(600)
    bucket.share(0.0, 0.5)
    bucket.observe(0.0, limit=60, remaining=59, reset_s=1.0)
    assert bucket.capacity_per_minute == pytest.approx(30.0)
    bucket.share(0.0, 1.0)
    assert bucket.capacity_per_minute == pytest.approx(60.0)


def test_a_bucket_without_a_limit_has_no_parts():
    """There is nothing to divide."""
    bucket = Bucket(None)
    bucket.share(0.0, 0.1)
    assert bucket.wait(0.0, 1e9) == 0.0


def test_debts_outlive_the_part():
    """What was used beyond a reservation is paid off, by whatever part there is."""
    bucket = Bucket(600)
    bucket.share(0.0, 0.0)
    bucket.share(0.0, 0.1)
    bucket.settle(0.0, 50.0)
    bucket.share(0.0, 0.0)
    bucket.share(100.0, 1.0)
    assert bucket.level == pytest.approx(-50.0)


def test_a_limit_that_the_provider_did_not_lower_follows_its_bound():
    """Down at once, and up at once."""
    limit = AdaptiveLimit(500)
    for most in (166, 500, 1, 250):
        limit.resize(most)
        assert limit.limit == most
    limit.resize(1000)
    assert limit.limit == 500


def test_what_the_provider_taught_outlives_a_change_of_the_bound():
    """A larger part is no reason to run into the provider's limit again."""
    limit = AdaptiveLimit(100)
    for _ in range(100):
        limit.try_acquire(0.0)
    limit.release(1.0, 0.0, refusal())
    assert (limit.limit, limit.ceiling) == (75, 99)
    limit.resize(80)
    assert limit.limit == 75
    limit.resize(20)
    assert limit.limit == 20
    limit.resize(100)
    assert limit.limit == 99


def test_calls_in_flight_beyond_a_cut_bound_are_waited_for():
    """Nothing is admitted until enough of them have ended."""
    throttle = Throttle(10, None, None)
    assert [throttle.admit(0.0, 0.0) for _ in range(10)] == [0.0] * 10
    throttle.share(0.0, 0.3, 3)
    for _ in range(7):
        assert throttle.admit(0.0, 0.0) == float("inf")
        throttle.settle(1.0, 0.0, 0.0, None, None, None)
    assert throttle.admit(1.0, 0.0) == float("inf")
    throttle.settle(1.0, 0.0, 0.0, None, None, None)
    assert throttle.admit(1.0, 0.0) == 0.0


def test_an_admission_that_is_cancelled_costs_nothing():
    """Slot, request and tokens are there again."""
    throttle = Throttle(1, 6, 600)
    assert throttle.admit(0.0, 100.0) == 0.0
    assert throttle.admit(0.0, 100.0) > 0.0
    throttle.cancel(100.0)
    assert throttle.admit(0.0, 100.0) == 0.0
