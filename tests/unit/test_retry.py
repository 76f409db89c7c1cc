"""rules/retry.py: which failures are tried again, and after how long."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.records.failure import RETRYABLE, RUN_STOPPING, FailureKind
from transforms.records.reply import CallError
from transforms.rules.retry import GiveUp, Retry, RetryPolicy, decide

POLICY = RetryPolicy(max_attempts=6, deadline_s=900.0)
K = FailureKind


def error(kind, **changes):
    """Return an error of this kind."""
    return CallError(kind=kind, message="x", **changes)


@pytest.mark.parametrize(
    ("failure", "attempt", "elapsed_s", "rand", "wait_s"),
    [
        pytest.param(error(K.SERVER_ERROR), 1, 1.0, 0.5, 0.25, id="first-wait-up-to-base"),
        pytest.param(error(K.SERVER_ERROR), 3, 1.0, 0.5, 1.0, id="ceiling-doubles-with-each-try"),
        pytest.param(error(K.TIMEOUT), 2, 60.0, 0.0, 0.0, id="full-jitter-reaches-zero"),
        pytest.param(error(K.OVERLOADED), 1, 1.0, 0.5, 1.0, id="overload-has-a-longer-base"),
        pytest.param(error(K.OVERLOADED), 3, 1.0, 0.5, 4.0, id="overload-doubles-too"),
        pytest.param(error(K.CONFLICT), 5, 1.0, 0.5, 4.0, id="conflict"),
        pytest.param(error(K.CONNECTION_ERROR, may_be_billed=True), 1, 1.0, 0.5, 0.25, id="lost-reply"),
        pytest.param(error(K.RATE_LIMITED, retry_after_s=7.0), 4, 1.0, 0.0, 7.0, id="server-wish-is-the-lower-bound"),
        pytest.param(error(K.RATE_LIMITED, retry_after_s=2.0), 1, 1.0, 0.5, 2.25, id="jitter-on-a-short-wish"),
        pytest.param(error(K.RATE_LIMITED, retry_after_s=100.0), 1, 1.0, 0.5, 105.0, id="jitter-on-a-long-wish"),
        pytest.param(error(K.RATE_LIMITED, retry_after_s=-3.0), 1, 1.0, 0.0, 0.0, id="wish-in-the-past"),
        pytest.param(error(K.RATE_LIMITED, retry_after_s=300.0), 1, 1.0, 0.0, 300.0, id="wish-at-the-cap"),
        pytest.param(error(K.INVALID_RESPONSE), 1, 1.0, 0.5, 0.25, id="invalid-response-once"),
        pytest.param(error(K.INVALID_REQUEST, force_retry=True), 1, 1.0, 0.5, 0.25, id="server-orders-a-retry"),
        pytest.param(error(K.INVALID_RESPONSE, force_retry=True), 3, 1.0, 0.5, 1.0, id="order-beats-once-only"),
    ],
)
def test_retry_waits(failure, attempt, elapsed_s, rand, wait_s):
    """Each curable failure is tried again after the wait its kind and its server ask for."""
    decision = decide(failure, attempt, elapsed_s, POLICY, rand)
    assert isinstance(decision, Retry)
    assert decision.wait_s == pytest.approx(wait_s)
    assert failure.kind in decision.reason


@pytest.mark.parametrize(
    ("failure", "attempt", "elapsed_s", "words"),
    [
        pytest.param(error(K.QUOTA_EXHAUSTED), 1, 1.0, "stops the run", id="billing"),
        pytest.param(error(K.AUTH, force_retry=True), 1, 1.0, "stops the run", id="auth-even-if-ordered"),
        pytest.param(error(K.INVALID_REQUEST), 1, 1.0, "not cured", id="bad-request"),
        pytest.param(error(K.CONTEXT_LENGTH_EXCEEDED), 1, 1.0, "not cured", id="too-long"),
        pytest.param(error(K.SERVER_ERROR, no_retry=True), 1, 1.0, "forbade", id="server-forbids"),
        pytest.param(error(K.SERVER_ERROR, no_retry=True, force_retry=True), 1, 1.0, "forbade", id="no-beats-yes"),
        pytest.param(error(K.SERVER_ERROR), 6, 1.0, "try 6 of 6", id="last-try"),
        pytest.param(error(K.INVALID_REQUEST, force_retry=True), 6, 1.0, "try 6 of 6", id="order-stays-bounded"),
        pytest.param(error(K.INVALID_RESPONSE), 2, 1.0, "again", id="invalid-response-twice"),
        pytest.param(error(K.RATE_LIMITED, retry_after_s=300.1), 1, 1.0, "asked for 300 s", id="wish-over-the-cap"),
        pytest.param(error(K.RATE_LIMITED, retry_after_s=60.0), 1, 840.0, "pass the deadline", id="wish-past-deadline"),
        pytest.param(error(K.TIMEOUT), 2, 899.9, "pass the deadline", id="wait-past-deadline"),
        pytest.param(error(K.TIMEOUT), 2, 1000.0, "pass the deadline", id="deadline-over"),
    ],
)
def test_give_up_reasons(failure, attempt, elapsed_s, words):
    """Each failure that another try can't cure, or has no time for, is given up with its reason."""
    decision = decide(failure, attempt, elapsed_s, POLICY, 0.5)
    assert isinstance(decision, GiveUp)
    assert words in decision.reason
    assert failure.kind in decision.reason


@pytest.mark.parametrize(
    ("invalid_before", "expected"), [pytest.param(False, Retry, id="first"), pytest.param(True, GiveUp, id="second")]
)
def test_invalid_response_is_counted_by_itself_when_the_caller_knows(invalid_before, expected):
    """A late first INVALID_RESPONSE is still tried once more, a second one is not."""
    decision = decide(error(K.INVALID_RESPONSE), 3, 1.0, POLICY, 0.5, invalid_before=invalid_before)
    assert isinstance(decision, expected)


errors = st.builds(
    CallError,
    kind=st.sampled_from(sorted(FailureKind)),
    message=st.just("x"),
    retry_after_s=st.none() | st.floats(-10.0, 1e6),
    no_retry=st.booleans(),
    force_retry=st.booleans(),
)
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    deadline_s=st.floats(0.1, 1e5),
    base_s=st.floats(0.01, 10.0),
    cap_s=st.floats(0.01, 600.0),
)
fractions = st.floats(0.0, 1.0, exclude_max=True)


@settings(deadline=None)
@given(errors, st.integers(1, 10_000), st.floats(0.0, 1e6), policies, fractions)
def test_every_retry_is_allowed_and_inside_both_bounds(failure, attempt, elapsed_s, policy, rand):
    """A retry is never negative, early against the server's wish, past the deadline, over max_attempts or forbidden."""
    decision = decide(failure, attempt, elapsed_s, policy, rand)
    assert decision.reason
    if isinstance(decision, Retry):
        assert decision.wait_s >= max(0.0, failure.retry_after_s or 0.0)
        assert elapsed_s + decision.wait_s < policy.deadline_s
        assert attempt < policy.max_attempts
        assert not failure.no_retry
        assert failure.kind not in RUN_STOPPING
        assert failure.kind in RETRYABLE or failure.force_retry


@settings(deadline=None)
@given(st.lists(st.tuples(errors, fractions), min_size=1, max_size=8), policies)
def test_a_request_ends(failures, policy):
    """Whatever the provider does, and however often, a request is sent at most max_attempts times."""
    elapsed_s, sent = 0.0, 0
    for failure, rand in itertools.cycle(failures):
        sent += 1
        decision = decide(failure, sent, elapsed_s, policy, rand)
        if isinstance(decision, GiveUp):
            break
        elapsed_s += decision.wait_s
    assert sent <= policy.max_attempts
    assert elapsed_s < policy.deadline_s
