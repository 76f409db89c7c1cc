"""Anthropic: bodies, messages, errors; judged by the official SDK's own requests and types."""

import orjson
import pytest
from anthropic.types import Message

from tests.unit.provider_anthropic_builders import CLOSED, PROMPT, SCHEMA, message, provider, response, sent_by_sdk
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, FinishReason, RateLimits, Reply, Usage
from transforms.records.request import Prompt


def test_a_request_is_what_the_sdk_would_send():
    """URL, version, authorization and body equal the official client's for the same call."""
    ours = provider(SCHEMA, {"max_output_tokens": 64, "stop": ["#"], "reasoning_effort": "low"})
    request = ours.request(ours.body(PROMPT), "k")
    theirs = sent_by_sdk(
        model="claude-sonnet-4-5",
        max_tokens=64,
        system="You label reviews.",
        messages=[
            {"role": "user", "content": "Good."},
            {"role": "assistant", "content": "{"},
            {"role": "user", "content": "Again."},
        ],
        stop_sequences=["#"],
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": CLOSED}},
    )
    assert (request.method, request.url) == (theirs.method, str(theirs.url))
    for header in ("authorization", "anthropic-version"):
        assert request.headers[header] == theirs.headers[header]
    assert "x-api-key" not in request.headers
    assert orjson.loads(request.body) == orjson.loads(theirs.content)


def test_the_key_can_go_as_x_api_key():
    """Older gateways know only x-api-key; then no bearer token is sent."""
    headers = provider(auth="x_api_key").request({}, "k").headers
    assert (headers["x-api-key"], "authorization" in headers) == ("k", False)
    assert not {"x-api-key", "authorization"} & provider().request({}, None).headers.keys()


def test_the_older_version_takes_sampling_parameters():
    """2023-06-01 keeps temperature and top_p, and is sent as the version."""
    ours = provider(params={"temperature": 0.5, "top_p": 0.9}, api_version="2023-06-01")
    assert ours.request({}, "k").headers["anthropic-version"] == "2023-06-01"
    assert ours.body(PROMPT)["temperature"] == 0.5
    assert ours.body(PROMPT)["top_p"] == 0.9


def test_max_tokens_has_a_default():
    """The API requires max_tokens, so without a limit in the job it is 1024."""
    ours = provider()
    assert ours.body(Prompt(None, (("user", "Hi"),))) == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    assert ours.max_output_tokens == 1024


@pytest.mark.parametrize("base_url", ["https://gate.example", "https://gate.example/", "https://gate.example/v1"])
def test_the_address_may_end_in_v1_or_not(base_url):
    """The path is added once."""
    ours = provider(base_url=base_url)
    assert ours.request({}, "k").url == "https://gate.example/v1/messages"
    assert ours.probe("k").url == "https://gate.example/v1/models?limit=1"


def test_the_identity_holds_all_but_prompt_and_version():
    """The same question to the same model shares an identity; what answers elsewhere is not that model."""
    own = "https://api.anthropic.com/v1/"
    assert provider(SCHEMA, api_version="2023-06-01", base_url=own).identity() == provider(SCHEMA).identity()
    assert provider(base_url="http://x/v1/").identity() == provider().identity() | {"base_url": "http://x"}
    assert provider().identity() == {
        "provider": "anthropic",
        "api": "messages",
        "body": {"model": "claude-sonnet-4-5", "max_tokens": 1024},
    }


THINKING = {"type": "thinking", "thinking": "hm", "signature": "s"}
MESSAGES = [
    pytest.param(message(), Kind.OK, FinishReason.STOP, "hi", None, id="end-turn"),
    pytest.param(message("stop_sequence"), Kind.OK, FinishReason.STOP, "hi", None, id="stop-sequence"),
    pytest.param(
        message(content=[THINKING, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        Kind.OK,
        FinishReason.STOP,
        "ab",
        None,
        id="text-blocks-only",
    ),
    pytest.param(message("max_tokens"), Kind.TRUNCATED, FinishReason.LENGTH, "hi", None, id="max-tokens"),
    pytest.param(message("max_tokens", [THINKING]), Kind.TRUNCATED, FinishReason.LENGTH, None, None, id="all-thinking"),
    pytest.param(
        message("model_context_window_exceeded"), Kind.TRUNCATED, FinishReason.LENGTH, "hi", None, id="window"
    ),
    pytest.param(message("pause_turn"), Kind.TRUNCATED, FinishReason.PAUSE, "hi", None, id="pause"),
    pytest.param(
        message("refusal", [], stop_details={"type": "refusal", "category": "bio", "explanation": "No."}),
        Kind.REFUSAL,
        FinishReason.REFUSAL,
        None,
        "bio: No.",
        id="refusal",
    ),
    pytest.param(message("refusal", []), Kind.REFUSAL, FinishReason.REFUSAL, None, None, id="refusal-unexplained"),
]


@pytest.mark.parametrize(("body", "kind", "finish", "text", "explanation"), MESSAGES)
def test_a_message_is_read(body, kind, finish, text, explanation):
    """Each stop reason is an outcome of its own, and input tokens are the sum of three counters."""
    Message.model_validate(body)
    assert provider().read(response(body)) == Reply(
        kind=kind,
        text=text,
        finish_reason=finish,
        raw_finish_reason=body["stop_reason"],
        response_model="claude-sonnet-4-5-20250929",
        usage=Usage(3210, 7, 3000, 200, 5),
        response_id="msg_1",
        explanation=explanation,
    )


def test_counters_that_are_absent_stay_unknown():
    """Without cache counters the input is what it says; without input tokens the sum is unknown."""
    plain = message(usage={"input_tokens": 10, "output_tokens": 7})
    assert provider().read(response(plain)).usage == Usage(10, 7)
    partial = message(usage={"cache_read_input_tokens": 5})
    assert provider().read(response(partial)).usage == Usage(None, None, 5)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(message(content=[]), id="no-text"),
        pytest.param(message("tool_use", [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]), id="tool"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"{}", id="empty-object"),
    ],
)
def test_a_2xx_without_text_is_an_invalid_response(body):
    """It quotes the body and may have been billed."""
    outcome = provider().read(response(body))
    assert (outcome.kind, outcome.may_be_billed) == (Kind.INVALID_RESPONSE, True)


def error(status, error_type, text="No.", detail=None, **headers):
    """Return an error response in Anthropic's shape."""
    body = {"type": error_type, "message": text} | ({"details": {"error_code": detail}} if detail else {})
    return response({"type": "error", "error": body, "request_id": "req_b"}, status, **headers)


INVALID, RATE = "invalid_request_error", "rate_limit_error"
LIMITS = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
BALANCE = "Your credit balance is too low to access the Anthropic API."
TOO_LONG = "prompt is too long: 210000 tokens > 200000 maximum"
ERRORS = [
    pytest.param(error(400, INVALID), Kind.INVALID_REQUEST, INVALID, id="400"),
    pytest.param(error(400, INVALID, LIMITS), Kind.QUOTA_EXHAUSTED, INVALID, id="400-usage-limits"),
    pytest.param(error(400, INVALID, BALANCE), Kind.QUOTA_EXHAUSTED, INVALID, id="400-balance"),
    pytest.param(
        error(400, INVALID, "On hold.", "organization_on_hold"),
        Kind.QUOTA_EXHAUSTED,
        "organization_on_hold",
        id="400-on-hold",
    ),
    pytest.param(error(400, INVALID, TOO_LONG), Kind.CONTEXT_LENGTH_EXCEEDED, INVALID, id="400-too-long"),
    pytest.param(error(401, "authentication_error"), Kind.AUTH, "authentication_error", id="401"),
    pytest.param(error(402, "billing_error"), Kind.QUOTA_EXHAUSTED, "billing_error", id="402"),
    pytest.param(
        error(402, "billing_error", "No.", "linked_organization_spend_limit_reached"),
        Kind.QUOTA_EXHAUSTED,
        "linked_organization_spend_limit_reached",
        id="402-linked",
    ),
    pytest.param(error(403, "permission_error"), Kind.PERMISSION, "permission_error", id="403"),
    pytest.param(error(404, "not_found_error"), Kind.NOT_FOUND, "not_found_error", id="404"),
    pytest.param(error(409, "conflict_error"), Kind.CONFLICT, "conflict_error", id="409"),
    pytest.param(error(413, "request_too_large"), Kind.REQUEST_TOO_LARGE, "request_too_large", id="413"),
    pytest.param(response(b"<html>413</html>", 413), Kind.REQUEST_TOO_LARGE, None, id="413-html"),
    pytest.param(error(429, RATE), Kind.RATE_LIMITED, RATE, id="429"),
    pytest.param(
        error(429, RATE, "No.", "enforced_spend_limit_reached"),
        Kind.QUOTA_EXHAUSTED,
        "enforced_spend_limit_reached",
        id="429-enforced",
    ),
    pytest.param(
        error(429, RATE, "No.", "contract_spend_limit_reached"),
        Kind.QUOTA_EXHAUSTED,
        "contract_spend_limit_reached",
        id="429-contract",
    ),
    pytest.param(
        error(429, RATE, "No.", "ramp_limit_exceeded", retry_after="9"),
        Kind.RATE_LIMITED,
        "ramp_limit_exceeded",
        id="429-ramp",
    ),
    pytest.param(error(500, "api_error"), Kind.SERVER_ERROR, "api_error", id="500"),
    pytest.param(
        error(503, "api_error", "No.", "cmek_key_unreachable"), Kind.OVERLOADED, "cmek_key_unreachable", id="503-cmek"
    ),
    pytest.param(error(504, "timeout_error"), Kind.TIMEOUT, "timeout_error", id="504"),
    pytest.param(error(529, "overloaded_error"), Kind.OVERLOADED, "overloaded_error", id="529"),
    pytest.param(response(b"", 529), Kind.OVERLOADED, None, id="529-empty"),
    pytest.param(error(200, "overloaded_error"), Kind.OVERLOADED, "overloaded_error", id="error-in-200"),
    pytest.param(error(400, "a_type_of_next_year"), Kind.INVALID_REQUEST, "a_type_of_next_year", id="unknown-type"),
]


@pytest.mark.parametrize(("given_response", "kind", "code"), ERRORS)
def test_errors_become_kinds(given_response, kind, code):
    """Each row of the error table has its kind; details say more than the type."""
    outcome = provider().read(given_response)
    assert isinstance(outcome, CallError)
    assert (outcome.kind, outcome.code) == (kind, code)
    assert outcome.may_be_billed is (given_response.status == 504)


def test_retry_hints_are_kept():
    """retry-after counts; without it the reset of an empty bucket, measured by the server's own clock."""
    assert provider().read(error(429, RATE, retry_after="9")).retry_after_s == 9.0
    headers = {
        "date": "Sun, 06 Nov 1994 08:49:37 GMT",
        "anthropic_ratelimit_tokens_limit": "9",
        "anthropic_ratelimit_tokens_remaining": "0",
        "anthropic_ratelimit_tokens_reset": "1994-11-06T08:49:57Z",
    }
    assert provider().read(error(429, RATE, **headers)).retry_after_s == 20.0
    assert provider().read(error(429, RATE, x_should_retry="false")).no_retry is True


def test_ids_and_limits():
    """request-id is the exchange's id; errors carry it in the body too."""
    assert provider().request_id(response(message(), request_id="req_h")) == "req_h"
    assert provider().request_id(error(500, "api_error")) == "req_b"
    assert provider().request_id(response(b"<html>", 500)) is None
    limits = provider().rate_limits(response(message(), anthropic_ratelimit_requests_limit="5"), 0.0)
    assert limits == RateLimits(limit_requests=5)


@pytest.mark.parametrize("content", [pytest.param(None, id="answer"), pytest.param([], id="no text")])
def test_the_service_tier_is_read_from_the_usage(content):
    """Answers, and messages without text, name the tier and the model that decide their price."""
    body = message(content=content)
    body["usage"]["service_tier"] = "priority"
    outcome = provider().read(response(body))
    assert isinstance(outcome, Reply if content is None else CallError)
    assert (outcome.service_tier, outcome.response_model) == ("priority", "claude-sonnet-4-5-20250929")
