"""OpenAI: bodies, replies, errors; judged by the official SDK's own requests and types."""

import httpx2
import openai
import orjson
import pytest
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from transforms.providers import make_provider
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, FinishReason, HttpResponse, RateLimits, Reply, Usage
from transforms.records.request import Prompt
from transforms.records.settings import ModelParams, ModelSettings

PROMPT = Prompt("You label reviews.", (("user", "Good."), ("assistant", "{"), ("user", "Again.")))
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
FREE = {"type": "object", "properties": {"label": {"type": "string"}}, "additionalProperties": True}


def provider(schema=None, params=None, **changes):
    """Return the adapter for a job's model."""
    settings = {"provider": "openai", "name": "gpt-4o-mini", "params": ModelParams(**(params or {}))} | changes
    return make_provider(ModelSettings(**settings), schema)


def response(body, status=200, **headers):
    """Return a response with a JSON body (or the bytes given)."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def completion(content="hi", finish="stop", **message):
    """Return a chat completion as OpenAI sends it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "logprobs": None,
                "message": {"role": "assistant", "content": content, "refusal": None, "annotations": []} | message,
            }
        ],
        "usage": {
            "prompt_tokens": 50,
            "completion_tokens": 8,
            "total_tokens": 58,
            "prompt_tokens_details": {"cached_tokens": 32, "cache_write_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


USAGE = Usage(50, 8, 32, 4, 3)


def answer(status="completed", parts=None, **changes):
    """Return a Response object as OpenAI sends it."""
    content = [{"type": "output_text", "text": "hi", "annotations": []}] if parts is None else parts
    message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "status": status,
        "model": "gpt-4o-mini-2024-07-18",
        "output": [{"type": "reasoning", "id": "rs_1", "summary": []}, message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "usage": {
            "input_tokens": 50,
            "input_tokens_details": {"cached_tokens": 32, "cache_write_tokens": 4},
            "output_tokens": 8,
            "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 58,
        },
    } | changes


def sent_by_sdk(call):
    """Return the request that the official SDK makes in `call(client)`."""
    seen = []

    def handle(request):
        seen.append(request)
        return httpx2.Response(500, json={})

    client = openai.OpenAI(
        api_key="k", max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(handle))
    )
    with pytest.raises(openai.InternalServerError):
        call(client)
    return seen[0]


def test_a_chat_request_is_what_the_sdk_would_send():
    """URL, authorization and body equal the official client's for the same call."""
    params = {
        "max_output_tokens": 64,
        "temperature": 0,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["#"],
        "reasoning_effort": "low",
    }
    ours = provider(SCHEMA, params)
    request = ours.request(ours.body(PROMPT), "k")
    theirs = sent_by_sdk(
        lambda client: client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[
                {"role": "system", "content": "You label reviews."},
                {"role": "user", "content": "Good."},
                {"role": "assistant", "content": "{"},
                {"role": "user", "content": "Again."},
            ],
            max_completion_tokens=64,
            temperature=0,
            top_p=0.5,
            seed=7,
            stop=["#"],
            reasoning_effort="low",
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
            },
        )
    )
    assert (request.method, request.url) == (theirs.method, str(theirs.url))
    assert request.headers["authorization"] == theirs.headers["authorization"] == "Bearer k"
    assert orjson.loads(request.body) == orjson.loads(theirs.content)


def test_a_responses_request_is_what_the_sdk_would_send():
    """The Responses API has instructions, input, and the format directly in `text`."""
    ours = provider(FREE, {"max_output_tokens": 64, "reasoning_effort": "low"}, api="responses")
    request = ours.request(ours.body(PROMPT), "k")
    theirs = sent_by_sdk(
        lambda client: client.responses.create(
            model="gpt-4o-mini",
            instructions="You label reviews.",
            input=[
                {"role": "user", "content": "Good."},
                {"role": "assistant", "content": "{"},
                {"role": "user", "content": "Again."},
            ],
            max_output_tokens=64,
            reasoning={"effort": "low"},
            text={"format": {"type": "json_schema", "name": "answer", "strict": False, "schema": FREE}},
        )
    )
    assert request.url == str(theirs.url)
    assert orjson.loads(request.body) == orjson.loads(theirs.content)


def test_what_is_not_set_is_not_sent():
    """Without params, schema and system part the body holds model and messages only."""
    assert provider().body(Prompt(None, (("user", "Hi"),))) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Hi"}],
    }


def test_extra_parameters_are_merged_as_they_are():
    """`extra` wins over what Rowbeam would send, and a limit in it is known as the limit."""
    ours = provider(params={"max_output_tokens": 64, "extra": {"service_tier": "flex", "max_completion_tokens": 9}})
    body = ours.body(PROMPT)
    assert (body["service_tier"], body["max_completion_tokens"], ours.max_output_tokens) == ("flex", 9, 9)


def test_the_identity_holds_all_but_the_prompt():
    """Another parameter makes another, and so does another address: what answers there is not OpenAI."""
    here, there = provider(SCHEMA), provider(SCHEMA, base_url="http://stand-in/v1/")
    assert here.identity() == provider(SCHEMA, base_url="https://api.openai.com/v1/").identity()
    assert there.identity() == here.identity() | {"base_url": "http://stand-in/v1"}
    assert here.identity()["provider"] == "openai"
    assert here.identity()["body"].keys() == {"model", "response_format"}
    assert provider(SCHEMA, {"seed": 1}).identity() != here.identity()
    assert provider(SCHEMA, api="responses").identity() != here.identity()


def test_the_probe_lists_models_at_the_address_of_the_job():
    """The probe is a GET with the key and no body."""
    probe = provider(base_url="https://eu.api.openai.com/v1/").probe("k")
    assert (probe.method, probe.url, probe.body) == ("GET", "https://eu.api.openai.com/v1/models", b"")
    assert probe.headers["authorization"] == "Bearer k"


CHAT = [
    pytest.param(completion(), Kind.OK, FinishReason.STOP, "hi", None, id="stop"),
    pytest.param(completion("", "stop"), Kind.OK, FinishReason.STOP, "", None, id="empty-text"),
    pytest.param(completion('{"la', "length"), Kind.TRUNCATED, FinishReason.LENGTH, '{"la', None, id="length"),
    pytest.param(completion(None, "length"), Kind.TRUNCATED, FinishReason.LENGTH, None, None, id="all-reasoning"),
    pytest.param(
        completion(None, refusal="I can't."), Kind.REFUSAL, FinishReason.REFUSAL, None, "I can't.", id="refusal"
    ),
    pytest.param(
        completion(None, "content_filter"), Kind.CONTENT_FILTERED, FinishReason.CONTENT_FILTER, None, None, id="filter"
    ),
]


@pytest.mark.parametrize(("body", "kind", "finish", "text", "explanation"), CHAT)
def test_a_chat_completion_is_read(body, kind, finish, text, explanation):
    """Each way a completion can end is an outcome of its own; the body is one that OpenAI's types accept."""
    ChatCompletion.model_validate(body, strict=True)
    assert provider().read(response(body)) == Reply(
        kind=kind,
        text=text,
        finish_reason=finish,
        raw_finish_reason=body["choices"][0]["finish_reason"],
        response_model="gpt-4o-mini-2024-07-18",
        usage=USAGE,
        response_id="chatcmpl-1",
        explanation=explanation,
    )


ANSWERS = [
    pytest.param(answer(), Kind.OK, FinishReason.STOP, "completed", "hi", None, id="completed"),
    pytest.param(
        answer(
            parts=[
                {"type": "output_text", "text": "a", "annotations": []},
                {"type": "output_text", "text": "b", "annotations": []},
            ]
        ),
        Kind.OK,
        FinishReason.STOP,
        "completed",
        "ab",
        None,
        id="two-parts",
    ),
    pytest.param(
        answer("incomplete", incomplete_details={"reason": "max_output_tokens"}),
        Kind.TRUNCATED,
        FinishReason.LENGTH,
        "max_output_tokens",
        "hi",
        None,
        id="truncated",
    ),
    pytest.param(
        answer("incomplete", output=[], incomplete_details={"reason": "content_filter"}),
        Kind.CONTENT_FILTERED,
        FinishReason.CONTENT_FILTER,
        "content_filter",
        None,
        None,
        id="filtered",
    ),
    pytest.param(
        answer(parts=[{"type": "refusal", "refusal": "No."}]),
        Kind.REFUSAL,
        FinishReason.REFUSAL,
        "completed",
        None,
        "No.",
        id="refusal",
    ),
]


@pytest.mark.parametrize(("body", "kind", "finish", "raw", "text", "explanation"), ANSWERS)
def test_a_response_object_is_read(body, kind, finish, raw, text, explanation):
    """Text parts are joined, reasoning is passed over, and each ending is an outcome of its own."""
    Response.model_validate(body)
    assert provider(api="responses").read(response(body)) == Reply(
        kind=kind,
        text=text,
        finish_reason=finish,
        raw_finish_reason=raw,
        response_model="gpt-4o-mini-2024-07-18",
        usage=USAGE,
        response_id="resp_1",
        explanation=explanation,
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("server_error", Kind.SERVER_ERROR),
        ("rate_limit_exceeded", Kind.RATE_LIMITED),
        ("invalid_prompt", Kind.CONTENT_FILTERED),
        ("bio_policy", Kind.CONTENT_FILTERED),
        ("misalignment_policy_violation", Kind.CONTENT_FILTERED),
        ("data_residency_mismatch", Kind.INVALID_REQUEST),
    ],
)
def test_a_failed_response_is_classified_by_its_code(code, kind):
    """HTTP 200 with status failed is an error, and says which; its usage is kept."""
    body = answer("failed", output=[], error={"code": code, "message": "It failed."})
    outcome = provider(api="responses").read(response(body))
    assert (outcome.kind, outcome.code, outcome.message, outcome.usage) == (kind, code, "It failed.", USAGE)


def test_a_failed_response_without_a_reason_is_a_server_error():
    """Nothing more is known, so another try may cure it."""
    assert provider(api="responses").read(response(answer("failed"))).kind is Kind.SERVER_ERROR


UNUSABLE = [
    pytest.param({}, completion() | {"choices": []}, id="no-choices"),
    pytest.param({}, {"id": "x"}, id="choices-missing"),
    pytest.param({}, completion(None), id="no-text"),
    pytest.param({}, completion(None, "tool_calls", tool_calls=[{"id": "t"}]), id="tool-call"),
    pytest.param({}, b"<html>Bad gateway</html>", id="html"),
    pytest.param({}, b'{"id": "chatcmpl-1", "choi', id="cut"),
    pytest.param({}, b"", id="empty"),
    pytest.param({}, b"[]", id="array"),
    pytest.param({"api": "responses"}, answer(output=[]), id="no-output"),
    pytest.param({"api": "responses"}, answer("in_progress"), id="unfinished"),
    pytest.param({"api": "responses"}, b"null", id="null"),
]


@pytest.mark.parametrize(("changes", "body"), UNUSABLE)
def test_a_2xx_without_an_answer_is_an_invalid_response(changes, body):
    """It quotes the body, may have been billed, and is never taken for an answer."""
    outcome = provider(**changes).read(response(body))
    assert isinstance(outcome, CallError)
    assert (outcome.kind, outcome.may_be_billed) == (Kind.INVALID_RESPONSE, True)
    assert outcome.message.startswith("HTTP 200 with ")


def test_an_unusable_body_is_quoted_to_500_bytes():
    """The record shows what came, but not all of it."""
    outcome = provider().read(response(b"x" * 5000))
    assert outcome.message == "HTTP 200 with a body that is not JSON: " + "x" * 500


def error(status, message="No.", error_type="invalid_request_error", code=None, **headers):
    """Return an error response in OpenAI's shape."""
    return response({"error": {"message": message, "type": error_type, "param": None, "code": code}}, status, **headers)


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


def test_usage_may_be_missing():
    """Absent counters are None."""
    body = completion()
    del body["usage"]
    assert provider().read(response(body)).usage == Usage()


@pytest.mark.parametrize(
    ("api", "body", "lacking"),
    [
        pytest.param("chat_completions", completion(), completion(None), id="chat"),
        pytest.param("responses", answer(), answer(parts=[]), id="responses"),
    ],
)
@pytest.mark.parametrize(
    ("said", "tier"),
    [("priority", "priority"), ("Default", "default"), (None, None), (7, None), ("x" * 99, "x" * 50 + " ...")],
)
def test_the_service_tier_is_read(api, body, lacking, said, tier):
    """Answers, and errors that carry usage, name the tier and the model that decide their price."""
    for given_body, kind in ((body, Reply), (lacking, CallError)):
        outcome = provider(api=api).read(response({**given_body, "service_tier": said}))
        assert isinstance(outcome, kind)
        assert (outcome.service_tier, outcome.response_model) == (tier, "gpt-4o-mini-2024-07-18")
        assert outcome.usage == USAGE


def test_an_answer_broken_off_names_its_tier():
    """What was run before the break is priced like an answer."""
    outcome = provider().read(response({**completion(finish="error"), "service_tier": "flex"}))
    assert isinstance(outcome, CallError)
    assert (outcome.service_tier, outcome.usage) == ("flex", USAGE)
