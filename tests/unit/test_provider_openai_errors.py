"""providers/openai: errors become kinds; hints, ids and limits are read from headers."""

import pytest

from tests.unit.provider_openai_builders import completion, error, provider, response
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, RateLimits

OVERFLOW = "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens."
QUOTA = "You exceeded your current quota, please check your plan and billing details."
ERRORS = [
    pytest.param(error(400), Kind.INVALID_REQUEST, "invalid_request_error", id="400"),
    pytest.param(
        error(400, OVERFLOW, code="context_length_exceeded"),
        Kind.CONTEXT_LENGTH_EXCEEDED,
        "context_length_exceeded",
        id="overflow-by-code",
    ),
    pytest.param(error(400, OVERFLOW), Kind.CONTEXT_LENGTH_EXCEEDED, "invalid_request_error", id="overflow-by-text"),
    pytest.param(
        error(400, "string too long: maximum context length is", code="string_above_max_length"),
        Kind.INVALID_REQUEST,
        "string_above_max_length",
        id="looks-like-overflow",
    ),
    pytest.param(
        error(400, code="unsupported_parameter"), Kind.INVALID_REQUEST, "unsupported_parameter", id="unsupported"
    ),
    pytest.param(error(400, code="unsupported_value"), Kind.INVALID_REQUEST, "unsupported_value", id="value"),
    pytest.param(
        error(400, code="content_policy_violation"), Kind.CONTENT_FILTERED, "content_policy_violation", id="policy"
    ),
    pytest.param(error(400, code="invalid_prompt"), Kind.CONTENT_FILTERED, "invalid_prompt", id="invalid-prompt"),
    pytest.param(error(400, code="moderation_blocked"), Kind.CONTENT_FILTERED, "moderation_blocked", id="moderation"),
    pytest.param(error(401, code="invalid_api_key"), Kind.AUTH, "invalid_api_key", id="401"),
    pytest.param(error(402), Kind.QUOTA_EXHAUSTED, "invalid_request_error", id="402"),
    pytest.param(error(403), Kind.PERMISSION, "invalid_request_error", id="403"),
    pytest.param(error(404, code="model_not_found"), Kind.NOT_FOUND, "model_not_found", id="404"),
    pytest.param(error(408), Kind.TIMEOUT, "invalid_request_error", id="408"),
    pytest.param(error(409), Kind.CONFLICT, "invalid_request_error", id="409"),
    pytest.param(error(413), Kind.REQUEST_TOO_LARGE, "invalid_request_error", id="413"),
    pytest.param(error(418), Kind.INVALID_REQUEST, "invalid_request_error", id="418"),
    pytest.param(error(422), Kind.INVALID_REQUEST, "invalid_request_error", id="422"),
    pytest.param(
        error(429, "Rate limit reached for gpt-4o-mini", "tokens", "rate_limit_exceeded"),
        Kind.RATE_LIMITED,
        "rate_limit_exceeded",
        id="429-rate",
    ),
    pytest.param(
        error(429, "Slow down", "rate_limit_error", "slow_down"), Kind.RATE_LIMITED, "slow_down", id="429-slow"
    ),
    *(
        pytest.param(error(429, "Billing.", "insufficient_quota", code), Kind.QUOTA_EXHAUSTED, code, id=f"429-{code}")
        for code in (
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "a_code_of_next_year",
        )
    ),
    pytest.param(error(429, QUOTA, None), Kind.QUOTA_EXHAUSTED, None, id="429-quota-by-text"),
    pytest.param(error(500, error_type="server_error"), Kind.SERVER_ERROR, "server_error", id="500"),
    pytest.param(
        error(503, error_type="service_unavailable_error", code="server_is_overloaded"),
        Kind.OVERLOADED,
        "server_is_overloaded",
        id="503",
    ),
    pytest.param(response(b"<html>502</html>", 502), Kind.SERVER_ERROR, None, id="502-html"),
    pytest.param(response(b"upstream timed out", 504), Kind.TIMEOUT, None, id="504-text"),
    pytest.param(response(b"", 524), Kind.TIMEOUT, None, id="524-empty"),
    pytest.param(response(b"", 529), Kind.OVERLOADED, None, id="529-empty"),
    pytest.param(response(b"", 301, location="https://x/"), Kind.INVALID_RESPONSE, None, id="redirect"),
    pytest.param(error(200, code="rate_limit_exceeded"), Kind.RATE_LIMITED, "rate_limit_exceeded", id="error-in-200"),
]


@pytest.mark.parametrize("api", ["chat_completions", "responses"])
@pytest.mark.parametrize(("given_response", "kind", "code"), ERRORS)
def test_errors_become_kinds(given_response, kind, code, api):
    """Each row of the error table has its kind and keeps the provider's code, in both APIs."""
    outcome = provider(api=api).read(given_response)
    assert isinstance(outcome, CallError)
    assert (outcome.kind, outcome.code) == (kind, code)
    assert outcome.may_be_billed is (given_response.status in {408, 502, 504, 524})
    assert outcome.message


def test_a_redirect_names_the_setting_to_check():
    """A redirect is nearly always a wrong base URL."""
    assert "check model.base_url" in provider().read(response(b"", 308, location="https://x/")).message


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({}, (None, False, False), id="silent"),
        pytest.param({"retry_after": "20"}, (20.0, False, False), id="retry-after"),
        pytest.param({"retry_after_ms": "1500"}, (1.5, False, False), id="retry-after-ms"),
        pytest.param({"x_should_retry": "false"}, (None, True, False), id="forbidden"),
        pytest.param({"x_should_retry": "true"}, (None, False, True), id="ordered"),
        pytest.param(
            {"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "6m0s"}, (360.0, False, False), id="empty"
        ),
        pytest.param(
            {"x_ratelimit_remaining_tokens": "9", "x_ratelimit_reset_tokens": "6m0s"}, (None, False, False), id="left"
        ),
    ],
)
def test_the_servers_wishes_are_kept(headers, expected):
    """Retry hints and orders travel in the error."""
    outcome = provider().read(error(429, code="rate_limit_exceeded", **headers))
    assert (outcome.retry_after_s, outcome.no_retry, outcome.force_retry) == expected


def test_a_reset_is_no_retry_hint_for_other_errors():
    """An empty bucket explains a 429 and nothing else."""
    headers = {"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "6m0s"}
    assert provider().read(error(500, **headers)).retry_after_s is None


def test_a_key_in_an_error_is_masked():
    """A provider that repeats the key must not bring it into the records."""
    message = provider().read(error(401, "Incorrect API key provided: sk-proj-abcdef1234567890.")).message
    assert message == "Incorrect API key provided: [key]"


def test_ids_and_limits_come_from_headers():
    """x-request-id is the exchange's id, and the x-ratelimit headers are the limits."""
    given_response = response(completion(), x_request_id="req_1", x_ratelimit_limit_requests="5")
    assert provider().request_id(given_response) == "req_1"
    assert provider().request_id(response(completion())) is None
    assert provider().rate_limits(given_response, 0.0) == RateLimits(limit_requests=5)
    assert provider().rate_limits(response(completion()), 0.0) is None


@pytest.mark.parametrize("value", [-1, True, "8", 2**63, 1.5, None, [], 10**30])
def test_a_counter_that_is_no_counter_is_unknown(value):
    """Nothing but a sane integer is a token count; unknown is None, never 0."""
    body = completion()
    body["usage"]["prompt_tokens"] = value
    content = str(body).replace("None", "null").replace("True", "true").replace("'", '"').encode()
    assert provider().read(response(content)).usage.input_tokens is None
