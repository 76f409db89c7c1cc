"""OpenRouter: errors inside a 200, keep-alive lines, upstream reasons, prices in the reply, routing."""

from decimal import Decimal

import orjson
import pytest

from tests.unit.provider_openrouter_builders import PROMPT, SCHEMA, completion, provider, response
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, FinishReason, RateLimits, Usage


def test_a_request_carries_routing_and_attribution():
    """With a schema, upstreams that ignore it are excluded; effort goes into `reasoning`."""
    ours = provider(SCHEMA, {"max_output_tokens": 9, "reasoning_effort": "low"}, routing={"only": ["openai"]})
    request = ours.request(ours.body(PROMPT), "k")
    assert request.url == "https://openrouter.ai/api/v1/chat/completions"
    assert request.headers["x-openrouter-title"] == "Rowbeam"
    assert request.headers["authorization"] == "Bearer k"
    assert orjson.loads(request.body) == {
        "model": "openai/gpt-4o-mini",
        "max_tokens": 9,
        "reasoning": {"effort": "low"},
        "provider": {"require_parameters": True, "only": ["openai"]},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA | {"additionalProperties": False}},
        },
        "messages": [{"role": "user", "content": "Good."}],
    }


@pytest.mark.parametrize(
    ("schema", "routing", "sent"),
    [
        pytest.param(None, None, None, id="free-text"),
        pytest.param(SCHEMA, None, {"require_parameters": True}, id="schema"),
        pytest.param(SCHEMA, {"require_parameters": False}, {"require_parameters": False}, id="the-job-decides"),
        pytest.param(None, {"zdr": True}, {"zdr": True}, id="routing-only"),
    ],
)
def test_require_parameters_goes_with_a_schema_unless_the_job_sets_it(schema, routing, sent):
    """The routing object is the job's own, with one default."""
    assert provider(schema, routing=routing).body(PROMPT).get("provider") == sent


def test_the_title_can_be_the_jobs_own():
    """Headers of the job win over ours, whatever their case."""
    ours = provider(headers={"X-OpenRouter-Title": "Mine", "HTTP-Referer": "https://example.com"})
    headers = ours.request({}, "k").headers
    assert (headers["x-openrouter-title"], headers["http-referer"]) == ("Mine", "https://example.com")


def test_the_probe_asks_for_the_key_itself():
    """The models list is public, so it would prove nothing about the key."""
    assert provider().probe("k").url == "https://openrouter.ai/api/v1/key"


def test_identity():
    """Routing can change the answer and is part of it; so is an address that is not OpenRouter's own."""
    assert provider().identity() == {
        "provider": "openrouter",
        "api": "chat_completions",
        "body": {"model": "openai/gpt-4o-mini"},
    }
    assert provider(routing={"only": ["azure"]}).identity() != provider().identity()
    assert provider(base_url="https://openrouter.ai/api/v1/").identity() == provider().identity()
    assert provider(base_url="http://x/v1").identity() == provider().identity() | {"base_url": "http://x/v1"}


def test_an_answer_is_read_with_its_price():
    """The model is the one that ran, and the price is exact."""
    outcome = provider().read(response(completion()))
    assert (outcome.kind, outcome.text, outcome.finish_reason) == (Kind.OK, "hi", FinishReason.STOP)
    assert (outcome.response_model, outcome.response_id) == ("openai/gpt-4o-mini-2024-07-18", "gen-1")
    assert outcome.usage == Usage(5, 2)
    assert outcome.provider_cost_usd == Decimal("0.00014")


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        pytest.param({"cost": 0.1}, "0.1", id="no-binary-noise"),
        pytest.param({"cost": 0}, "0", id="free"),
        pytest.param({"cost": 1e-07}, "0.0000001", id="exponent"),
        pytest.param({"cost": None}, None, id="null"),
        pytest.param({"cost": "0.1"}, None, id="string"),
        pytest.param({"cost": -1}, None, id="negative"),
        pytest.param({"cost": True}, None, id="boolean"),
        pytest.param({"cost": 1e30}, None, id="beyond-all-money"),
        pytest.param({"cost": 999_999_999.5}, "999999999.5", id="much"),
        pytest.param(
            {"cost": 0.1, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}, "0.3", id="own-key"
        ),
        pytest.param({"cost": 0.1, "is_byok": True, "cost_details": {}}, None, id="own-key-unknown-bill"),
    ],
)
def test_the_price_is_exact_or_unknown(usage, cost):
    """A price is what the number says, digit by digit; with one's own key the upstream's bill is added."""
    outcome = provider().read(response(completion(usage=usage)))
    assert outcome.provider_cost_usd == (None if cost is None else Decimal(cost))


@pytest.mark.parametrize(
    "before",
    [b"\n\n   \n", b": OPENROUTER PROCESSING\n\n", b"\r\n: OPENROUTER PROCESSING\r\n: x\r\n\r\n", b"\xef\xbb\xbf"],
)
def test_keep_alive_lines_before_the_body_are_skipped(before):
    """Blank lines, SSE comments and a byte order mark are no part of the answer."""
    assert provider().read(response(before + orjson.dumps(completion()))).text == "hi"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(completion("length", "max_tokens"), Kind.TRUNCATED, id="length"),
        pytest.param(completion("content_filter", "SAFETY"), Kind.CONTENT_FILTERED, id="filter"),
        pytest.param(completion("stop", "refusal"), Kind.REFUSAL, id="native-refusal"),
        pytest.param(
            completion() | {"choices": [{"finish_reason": "stop", "message": {"content": None, "refusal": "No."}}]},
            Kind.REFUSAL,
            id="refusal",
        ),
    ],
)
def test_endings_are_outcomes_of_their_own(body, kind):
    """Truncation, filter and refusal are told apart, and their price is kept."""
    outcome = provider().read(response(body))
    assert outcome.kind is kind
    assert outcome.provider_cost_usd == Decimal("0.00014")


BROKEN = {"code": 502, "message": "Upstream broke", "metadata": {"provider_name": "Acme", "raw": {"why": "disk"}}}
IN_200 = [
    pytest.param({"error": BROKEN}, "502", Kind.SERVER_ERROR, id="top-level-alone"),
    pytest.param(completion() | {"error": BROKEN}, "502", Kind.SERVER_ERROR, id="top-level-beats-choices"),
    pytest.param(completion("error", error=BROKEN, usage=None), "502", Kind.SERVER_ERROR, id="in-the-choice"),
    pytest.param(completion(error=BROKEN), "502", Kind.SERVER_ERROR, id="in-the-choice-beats-stop"),
    pytest.param(completion("error", "error", "part"), "error", Kind.SERVER_ERROR, id="finish-reason-error"),
    pytest.param(completion() | {"choices": []}, None, Kind.INVALID_RESPONSE, id="no-choices"),
    pytest.param({"id": "gen-1"}, None, Kind.INVALID_RESPONSE, id="choices-missing"),
    pytest.param({"error": {"code": 429, "message": "Slow"}}, "429", Kind.RATE_LIMITED, id="rate"),
    pytest.param({"error": {"code": 402, "message": "Credits"}}, "402", Kind.QUOTA_EXHAUSTED, id="credits"),
]


@pytest.mark.parametrize(("body", "code", "kind"), IN_200)
def test_an_error_inside_a_200_is_an_error(body, code, kind):
    """All forms are found, in the order that OpenRouter documents, and none passes for an answer."""
    outcome = provider().read(response(body))
    assert isinstance(outcome, CallError)
    assert (outcome.kind, outcome.code) == (kind, code)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        pytest.param({}, "Provider returned error", id="plain"),
        pytest.param({"raw": "too hot", "provider_name": "Acme"}, "Provider returned error (Acme: too hot)", id="raw"),
        pytest.param({"raw": {"a": 1}}, 'Provider returned error (upstream: {"a":1})', id="raw-object"),
        pytest.param({"reasons": ["hate"]}, "Provider returned error (moderation: hate)", id="moderation"),
    ],
)
def test_the_upstreams_words_are_in_the_message(metadata, message):
    """The real reason is often only in metadata.raw."""
    body = {"error": {"code": 500, "message": "Provider returned error", "metadata": metadata}}
    assert provider().read(response(body, 500)).message == message


@pytest.mark.parametrize(
    ("error_type", "kind"),
    [
        ("context_length_exceeded", Kind.CONTEXT_LENGTH_EXCEEDED),
        ("token_limit_exceeded", Kind.CONTEXT_LENGTH_EXCEEDED),
        ("max_tokens_exceeded", Kind.INVALID_REQUEST),
        ("string_too_long", Kind.INVALID_REQUEST),
        ("authentication", Kind.AUTH),
        ("permission_denied", Kind.PERMISSION),
        ("payment_required", Kind.QUOTA_EXHAUSTED),
        ("rate_limit_exceeded", Kind.RATE_LIMITED),
        ("provider_overloaded", Kind.OVERLOADED),
        ("provider_unavailable", Kind.OVERLOADED),
        ("invalid_request", Kind.INVALID_REQUEST),
        ("invalid_prompt", Kind.CONTENT_FILTERED),
        ("not_found", Kind.NOT_FOUND),
        ("precondition_failed", Kind.INVALID_REQUEST),
        ("payload_too_large", Kind.REQUEST_TOO_LARGE),
        ("unprocessable", Kind.INVALID_REQUEST),
        ("content_policy_violation", Kind.CONTENT_FILTERED),
        ("refusal", Kind.REFUSAL),
        ("server", Kind.SERVER_ERROR),
        ("timeout", Kind.TIMEOUT),
        ("unmapped", Kind.OVERLOADED),
    ],
)
def test_the_error_type_says_more_than_the_status(error_type, kind):
    """metadata.error_type is stable and comes first; an unmapped one leaves the status."""
    body = {"error": {"code": 503, "message": "No.", "metadata": {"error_type": error_type}}}
    outcome = provider().read(response(body, 503))
    assert (outcome.kind, outcome.code) == (kind, error_type)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        pytest.param(400, {"message": "Bad"}, Kind.INVALID_REQUEST, id="400"),
        pytest.param(
            400,
            {"message": "Bad", "metadata": {"raw": "This model's maximum context length is 8192 tokens"}},
            Kind.CONTEXT_LENGTH_EXCEEDED,
            id="400-overflow-in-raw",
        ),
        pytest.param(401, {"message": "No auth"}, Kind.AUTH, id="401"),
        pytest.param(402, {"message": "Credits"}, Kind.QUOTA_EXHAUSTED, id="402"),
        pytest.param(403, {"message": "No"}, Kind.PERMISSION, id="403"),
        pytest.param(
            403,
            {"message": "Flagged", "metadata": {"reasons": ["hate"], "flagged_input": "x"}},
            Kind.CONTENT_FILTERED,
            id="403-moderation",
        ),
        pytest.param(404, {"message": "No endpoints found"}, Kind.NOT_FOUND, id="404"),
        pytest.param(408, {"message": "Slow"}, Kind.TIMEOUT, id="408"),
        pytest.param(413, {"message": "Large"}, Kind.REQUEST_TOO_LARGE, id="413"),
        pytest.param(422, {"message": "Odd"}, Kind.INVALID_REQUEST, id="422"),
        pytest.param(429, {"message": "Slow down"}, Kind.RATE_LIMITED, id="429"),
        pytest.param(500, {"message": "Oops"}, Kind.SERVER_ERROR, id="500"),
        pytest.param(502, {"message": "Upstream"}, Kind.SERVER_ERROR, id="502"),
        pytest.param(503, {"message": "None fits"}, Kind.OVERLOADED, id="503"),
        pytest.param(524, {"message": "Slow"}, Kind.TIMEOUT, id="524"),
        pytest.param(529, {"message": "Busy"}, Kind.OVERLOADED, id="529"),
    ],
)
def test_a_status_becomes_a_kind(status, error, kind):
    """Each status of the table has its kind, and the integer code becomes text."""
    outcome = provider().read(response({"error": {"code": status} | error}, status))
    assert (outcome.kind, outcome.code) == (kind, str(status))


NOW_MS = 784111777000
LIMIT_HEADERS = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(NOW_MS + 4000)}
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("error", "headers", "wait_s"),
    [
        pytest.param({}, {}, None, id="silent"),
        pytest.param({}, {"retry_after": "3"}, 3.0, id="header"),
        pytest.param({"availability": {"retry_after": 5, "retryable": True}}, {}, 5.0, id="availability"),
        pytest.param({"availability": {"retry_after": "5"}}, {"retry_after": "3"}, 3.0, id="header-first"),
        pytest.param({"metadata": {"headers": {"Retry-After": 7}}}, {}, 7.0, id="copied-header"),
        pytest.param({"metadata": {"headers": LIMIT_HEADERS}}, {"date": DATE}, 4.0, id="copied-reset"),
        pytest.param({"metadata": {"headers": LIMIT_HEADERS}}, {}, None, id="copied-reset-without-a-clock"),
        pytest.param(
            {}, {"date": DATE} | {n.replace("-", "_").lower(): v for n, v in LIMIT_HEADERS.items()}, 4.0, id="reset"
        ),
    ],
)
def test_every_retry_hint_is_read(error, headers, wait_s):
    """Headers first, then the availability object, then the headers copied into metadata."""
    body = {"error": {"code": 429, "message": "Slow"} | error}
    assert provider().read(response(body, 429, **headers)).retry_after_s == wait_s


def test_ids_and_limits():
    """X-Generation-Id or the body's id names the exchange; limits come with OpenRouter's own 429s."""
    ours = provider()
    assert ours.request_id(response(completion(), x_generation_id="gen-h")) == "gen-h"
    assert ours.request_id(response(completion())) == "gen-1"
    assert ours.request_id(response(b"x")) is None
    headers = {name.replace("-", "_").lower(): value for name, value in LIMIT_HEADERS.items()}
    assert ours.rate_limits(response({}, 429, **headers), NOW_MS / 1000) == RateLimits(20, 0, 4.0)
    assert ours.rate_limits(response(completion()), 0.0) is None
