"""No response can make an adapter raise, and no body is ever changed by asking for another."""

import copy

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transforms.providers import PROVIDERS, make_provider
from transforms.providers.reading import NOT_JSON, parse_json
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpResponse, Reply
from transforms.records.request import Prompt
from transforms.records.settings import ModelSettings

AZURE = {"base_url": "https://res.openai.azure.com", "deployment": "d"}
MODELS = [
    ModelSettings(provider="openai", name="m"),
    ModelSettings(provider="openai", name="m", api="responses"),
    ModelSettings(provider="azure_openai", name="m", **AZURE),
    ModelSettings(provider="azure_openai", name="m", api="responses", **AZURE),
    ModelSettings(provider="anthropic", name="m"),
    ModelSettings(provider="openrouter", name="m"),
    ModelSettings(provider="openai_compatible", name="m", base_url="http://h/v1"),
    ModelSettings(provider="llama_cpp", name="m"),
]
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
ADAPTERS = [make_provider(model, SCHEMA) for model in MODELS]

CHAT = {
    "id": "c",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "native_finish_reason": "stop",
            "error": None,
            "content_filter_results": {"hate": {"filtered": True, "severity": "low"}},
            "message": {"role": "assistant", "content": "hi", "refusal": None},
        }
    ],
    "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "cost": 0.1,
        "is_byok": True,
        "cost_details": {"upstream_inference_cost": 0.2},
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}
RESPONSE = {
    "id": "r",
    "status": "completed",
    "model": "m",
    "error": None,
    "incomplete_details": {"reason": "max_output_tokens"},
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}, {"type": "refusal"}]}],
    "usage": {"input_tokens": 1, "output_tokens": 1, "input_tokens_details": {}, "output_tokens_details": {}},
}
MESSAGE = {
    "id": "m",
    "type": "message",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "refusal",
    "stop_details": {"category": "bio", "explanation": "x"},
    "usage": {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": 1},
}
ERROR = {
    "type": "error",
    "message": "m",
    "detail": [{"msg": "x"}],
    "error": {
        "message": "prompt is too long",
        "type": "invalid_request_error",
        "code": 400,
        "details": {"error_code": "organization_on_hold"},
        "innererror": {"code": "x", "content_filter_result": {"hate": {"filtered": True, "severity": "low"}}},
        "availability": {"retry_after": 3},
        "metadata": {
            "error_type": "server",
            "raw": {"a": 1},
            "provider_name": "p",
            "reasons": ["x"],
            "headers": {"Retry-After": "3"},
        },
    },
}
WORDS = ["stop", "length", "error", "refusal", "failed", "incomplete", "content_filter", "rate_limit_exceeded", "403"]
JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=10),
        st.sampled_from(WORDS),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["error", "message", "text", "type"]), inner)
    ),
    max_leaves=5,
)
STATUSES = st.one_of(st.sampled_from([200, 201, 301, 400, 402, 403, 404, 429, 500, 503, 529]), st.integers(-1, 1000))
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "x-should-retry", "x-request-id", "location", "x-ratelimit-reset"]),
    st.text(max_size=20),
    max_size=3,
)


def places(value, path=()):
    """Return the path of every value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


def put(value, path, new):
    """Return a copy with the value at the path replaced."""
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


@st.composite
def mutated(draw):
    """Draw a valid body with up to three of its values replaced by anything."""
    body = draw(st.sampled_from([CHAT, RESPONSE, MESSAGE, ERROR]))
    for _ in range(draw(st.integers(1, 3))):
        body = put(body, draw(st.sampled_from(places(body))), draw(JUNK))
    return orjson.dumps(body)


@st.composite
def cut(draw):
    """Draw a valid body cut off somewhere."""
    body = orjson.dumps(draw(st.sampled_from([CHAT, RESPONSE, MESSAGE, ERROR])))
    return body[: draw(st.integers(0, len(body)))]


BODIES = st.one_of(st.binary(max_size=200), cut(), mutated(), mutated(), st.just(b"[" * 900 + b"]" * 900))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BODIES, STATUSES, HEADERS)
def test_reading_never_raises(body, status, headers):
    """Any bytes at any status become a Reply or a CallError whose fields are what their types say."""
    response = HttpResponse(status, headers, body)
    for adapter in ADAPTERS:
        outcome = adapter.read(response)
        adapter.request_id(response)
        adapter.rate_limits(response, 0.0)
        if isinstance(outcome, CallError):
            assert outcome.kind is not FailureKind.OK
            assert outcome.message
            assert outcome.code is None or isinstance(outcome.code, str)
            continue
        assert isinstance(outcome, Reply)
        assert 200 <= status < 300
        assert outcome.text is None or isinstance(outcome.text, str)
        assert outcome.text is not None or outcome.kind is not FailureKind.OK
        usage = outcome.usage
        for counter in (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens):
            assert counter is None or (type(counter) is int and 0 <= counter < 2**63)


def deep(levels):
    """Return JSON objects nested in each other."""
    return b'{"error":{"code":500,"message":"m","metadata":{"raw":' + b"[" * levels + b"]" * levels + b"}}}"


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: f"{adapter.name}-{adapter.identity()['api']}")
@pytest.mark.parametrize("levels", [300, 900, 100_000])
def test_deep_nesting_is_survived(adapter, levels):
    """A body that is nested beyond any stack is an error like others."""
    assert adapter.read(HttpResponse(500, {}, deep(levels))).kind is FailureKind.SERVER_ERROR


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: f"{adapter.name}-{adapter.identity()['api']}")
def test_bodies_share_nothing_that_changes(adapter):
    """Each request has its own top level and its own messages; the shared part stays as it was."""
    before = copy.deepcopy(adapter.identity())
    one = adapter.body(Prompt("s", (("user", "a"),)))
    one["added"] = True
    for key in ("messages", "input"):
        one.get(key, []).clear()
    two = adapter.body(Prompt("s", (("user", "b"),)))
    assert "added" not in two
    assert any(two.get(key) for key in ("messages", "input"))
    assert adapter.identity() == before


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: f"{adapter.name}-{adapter.identity()['api']}")
def test_no_identity_holds_a_key(adapter):
    """Sending with a key leaves no trace of it in the adapter."""
    adapter.request(adapter.body(Prompt(None, (("user", "a"),))), "canary-key")
    assert "canary-key" not in repr(vars(adapter))
    assert "canary-key" not in repr(adapter.identity())


def test_every_provider_of_the_table_is_read_here():
    """A provider added to the table must be added to this file."""
    assert {model.provider for model in MODELS} == set(PROVIDERS)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        pytest.param(b"a\\ud800b", "a\ufffdb", id="first half"),
        pytest.param(b"a\\uDC00b", "a\ufffdb", id="second half, in capitals"),
        pytest.param(b"\\ud83d\\ude00\\ud83d", "\U0001f600\ufffd", id="a pair stays a character"),
        pytest.param(b"\\\\ud800 \\ud800", "\\ud800 \ufffd", id="an escaped backslash is no escape"),
    ],
)
def test_half_a_surrogate_pair_does_not_cost_the_answer(written, text):
    """The paid answer is read, as Unicode that the ledger, Parquet and JSON lines can all hold."""
    body = orjson.dumps(CHAT).replace(b'"hi"', b'"' + written + b'"')
    outcome = ADAPTERS[0].read(HttpResponse(200, {}, body))
    assert isinstance(outcome, Reply)
    assert outcome.text == text
    assert outcome.usage.input_tokens == 5
    assert orjson.loads(orjson.dumps(outcome.text)) == text


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a": "\\ud800"', id="cut off"),
        pytest.param(b'{"a": "\\ud800", "b": NaN}', id="NaN"),
        pytest.param(b'{"a": "\\ud800\xff"}', id="not UTF-8"),
        pytest.param(b'["\\ud800", ' + b"[" * 100_000 + b"]" * 100_000 + b"]", id="too deep"),
    ],
)
def test_what_is_not_json_stays_so_beside_a_lone_surrogate(body):
    """The second look is for the surrogate alone."""
    assert parse_json(body) is NOT_JSON
