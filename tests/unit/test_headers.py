"""Retry hints and rate-limit headers in every form that providers send."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transforms.providers import headers
from transforms.records.reply import RateLimits

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
DATE_S = 784111777.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("6m0s", 360.0, id="go-minutes"),
        pytest.param("1s", 1.0, id="go-seconds"),
        pytest.param("12ms", 0.012, id="go-milliseconds"),
        pytest.param("59.7s", 59.7, id="go-fraction"),
        pytest.param("2m59.56s", 179.56, id="groq"),
        pytest.param("1d2h", 93600.0, id="days"),
        pytest.param("10", 10.0, id="azure-plain-seconds"),
        pytest.param(" 0.5 ", 0.5, id="blanks"),
        pytest.param("-1", None, id="negative"),
        pytest.param("nan", None, id="nan"),
        pytest.param("inf", None, id="infinite"),
        pytest.param("5s!", None, id="rubbish-after"),
        pytest.param("5s 1m", None, id="gap"),
        pytest.param("soon", None, id="word"),
        pytest.param("", None, id="empty"),
    ],
)
def test_durations_are_read_in_both_forms(text, seconds):
    """Go durations and plain seconds are read; anything else is no duration."""
    value = headers.duration_s(text)
    assert value == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("given_headers", "seconds"),
    [
        pytest.param({}, None, id="silent"),
        pytest.param({"retry-after": "7"}, 7.0, id="seconds"),
        pytest.param({"retry-after": "0.25"}, 0.25, id="fraction"),
        pytest.param({"retry-after": "20s"}, 20.0, id="duration"),
        pytest.param({"retry-after-ms": "2000", "retry-after": "9"}, 2.0, id="milliseconds-first"),
        pytest.param({"retry-after-ms": "x", "retry-after": "9"}, 9.0, id="broken-milliseconds"),
        pytest.param({"retry-after": "Sun, 06 Nov 1994 08:50:07 GMT", "date": DATE}, 30.0, id="http-date"),
        pytest.param({"retry-after": "Sunday, 06-Nov-94 08:50:07 GMT", "date": DATE}, 30.0, id="rfc850-date"),
        pytest.param({"retry-after": "Sun Nov  6 08:50:07 1994", "date": DATE}, 30.0, id="asctime-date"),
        pytest.param({"retry-after": DATE, "date": "Sun, 06 Nov 1994 08:50:07 GMT"}, 0.0, id="past-date"),
        pytest.param({"retry-after": DATE}, None, id="date-without-a-clock"),
        pytest.param({"retry-after": DATE, "date": "today"}, None, id="broken-clock"),
        pytest.param({"retry-after": "-5"}, None, id="negative"),
        pytest.param({"retry-after": "later"}, None, id="word"),
    ],
)
def test_retry_after_is_read_in_every_form(given_headers, seconds):
    """Milliseconds, seconds, durations and HTTP dates against the server's own clock give seconds."""
    assert headers.retry_after_s(given_headers) == seconds


@pytest.mark.parametrize(("text", "order"), [("true", True), ("false", False), (" TRUE ", True), ("maybe", None)])
def test_should_retry_is_an_order_or_nothing(text, order):
    """x-should-retry counts only when it says true or false."""
    assert headers.should_retry({"x-should-retry": text}) is order
    assert headers.should_retry({}) is None


def openai(**changes):
    """Return a full set of OpenAI's headers, with changes by short name (limit_tokens="..."), None to leave out."""
    values = {
        "limit_requests": "500",
        "remaining_requests": "499",
        "reset_requests": "120ms",
        "limit_tokens": "200000",
        "remaining_tokens": "0",
        "reset_tokens": "6m0s",
    } | changes
    return {f"x-ratelimit-{k.replace('_', '-')}": v for k, v in values.items() if v is not None}


def test_openai_limits_are_read():
    """Counts are integers and resets seconds."""
    assert headers.openai_limits(openai(), 0.0) == RateLimits(500, 499, 0.12, 200000, 0, 360.0)


@pytest.mark.parametrize("unknown", ["0", "-1", "?"])
def test_a_limit_of_nothing_means_that_the_bucket_is_unknown(unknown):
    """Azure's Responses route says -1 or 0 for "unknown", which must not read as an empty bucket."""
    limits = headers.openai_limits(openai(limit_tokens=unknown), 0.0)
    assert (limits.limit_tokens, limits.remaining_tokens, limits.reset_tokens_s) == (None, None, None)
    assert limits.limit_requests == 500


def test_an_empty_bucket_without_limit_or_reset_says_nothing():
    """A lone remaining of 0 could stop a run for ever, so it is not believed."""
    assert headers.openai_limits({"x-ratelimit-remaining-tokens": "0"}, 0.0) is None


def test_the_tighter_token_bucket_counts():
    """Where a project bucket applies, the one with less left is reported."""
    given_headers = openai(remaining_tokens="100") | {
        "x-ratelimit-limit-project-tokens": "90",
        "x-ratelimit-remaining-project-tokens": "40",
        "x-ratelimit-reset-project-tokens": "3s",
    }
    limits = headers.openai_limits(given_headers, 0.0)
    assert (limits.limit_tokens, limits.remaining_tokens, limits.reset_tokens_s) == (90, 40, 3.0)


def test_anthropic_resets_are_times():
    """RFC 3339 resets become seconds from now, and need a clock."""
    given_headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "1994-11-06T08:50:07Z",
        "anthropic-ratelimit-input-tokens-limit": "1000",
        "anthropic-ratelimit-input-tokens-remaining": "900",
        "anthropic-ratelimit-output-tokens-limit": "800",
        "anthropic-ratelimit-output-tokens-remaining": "10",
    }
    assert headers.anthropic_limits(given_headers, DATE_S) == RateLimits(50, 0, 30.0, 800, 10, None)
    assert headers.anthropic_limits(given_headers, None).reset_requests_s is None
    combined = given_headers | {"anthropic-ratelimit-tokens-limit": "9", "anthropic-ratelimit-tokens-remaining": "8"}
    assert headers.anthropic_limits(combined, DATE_S).limit_tokens == 9


def test_openrouter_resets_are_epoch_milliseconds():
    """X-RateLimit-Reset counts milliseconds since the epoch."""
    given_headers = {
        "x-ratelimit-limit": "20",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(int(DATE_S * 1000) + 4500),
    }
    assert headers.openrouter_limits(given_headers, DATE_S) == RateLimits(20, 0, 4.5)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        pytest.param(None, None, id="no-limits"),
        pytest.param(RateLimits(5, 1, 9.0, 5, 1, 9.0), None, id="something-left"),
        pytest.param(RateLimits(5, 0, 9.0, 5, 1, 99.0), 9.0, id="one-empty"),
        pytest.param(RateLimits(5, 0, 9.0, 5, 0, 99.0), 99.0, id="both-empty"),
        pytest.param(RateLimits(5, 0, None), None, id="empty-without-reset"),
    ],
)
def test_resets_count_only_when_a_bucket_is_empty(limits, seconds):
    """A reset is a wait only for a bucket with nothing left."""
    assert headers.wait_for_reset_s(limits) == seconds


NAMES = [
    *openai(),
    "date",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-remaining-project-tokens",
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
]
VALUES = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"\A[0-9.:+TZdhms, GMTe-]{0,30}\Z"),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from([DATE, "9999-12-31T23:59:59-23:59", "Fri, 31 Dec 9999 23:59:59 -2359", "1e308", "9" * 400]),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.one_of(st.none(), st.floats(0, 1e11)))
def test_no_header_can_break_the_reading(given_headers, now_s):
    """Whatever headers hold, reading gives finite values of at least 0, or None."""
    waits = [headers.retry_after_s(given_headers)]
    headers.should_retry(given_headers)
    for read in (headers.openai_limits, headers.anthropic_limits, headers.openrouter_limits):
        limits = read(given_headers, now_s)
        waits.append(headers.wait_for_reset_s(limits))
        if limits is not None:
            waits += [limits.reset_requests_s, limits.reset_tokens_s]
            counts = [limits.limit_requests, limits.remaining_requests, limits.limit_tokens, limits.remaining_tokens]
            assert all(count is None or 0 <= count < 2**63 for count in counts)
    assert all(wait is None or 0 <= wait < float("inf") for wait in waits)
