"""OpenAI-compatible servers and llama.cpp: what local servers say, and what they leave out."""

import orjson
import pytest

from transforms.providers import make_provider
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, FinishReason, HttpResponse, Reply, Usage
from transforms.records.request import Prompt
from transforms.records.settings import ModelParams, ModelSettings

PROMPT = Prompt("Be brief.", (("user", "Good."),))
SCHEMA = {"type": "object", "properties": {"label": {"type": "string", "maxLength": 9}}}
BASE = "http://localhost:8000/v1"


def compatible(schema=None, params=None, **changes):
    """Return the adapter for a compatible server."""
    params = ModelParams(**(params or {}))
    settings = {"provider": "openai_compatible", "name": "llama", "base_url": BASE, "params": params} | changes
    return make_provider(ModelSettings(**settings), schema)


def llama(schema=None, **changes):
    """Return the adapter for an embedded llama.cpp."""
    return make_provider(ModelSettings(**({"provider": "llama_cpp", "name": "SmolLM2"} | changes)), schema)


def response(body, status=200, **headers):
    """Return a response with a JSON body (or the bytes given)."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def test_a_request_has_max_tokens_and_no_key():
    """Older servers know only max_tokens, and local ones ask for no key."""
    ours = compatible(params={"max_output_tokens": 9, "temperature": 0, "stop": ["a", "b", "c", "d", "e"]})
    request = ours.request(ours.body(PROMPT), None)
    assert request.url == BASE + "/chat/completions"
    assert "authorization" not in request.headers
    assert orjson.loads(request.body) == {
        "model": "llama",
        "max_tokens": 9,
        "temperature": 0,
        "stop": ["a", "b", "c", "d", "e"],
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Good."}],
    }
    assert (ours.name, ours.key_env, ours.max_output_tokens) == ("openai_compatible", None, 9)


def test_a_key_is_sent_when_the_job_names_one():
    """A server behind --api-key gets a bearer token."""
    ours = compatible(api_key_env="VLLM_KEY")
    assert ours.key_env == "VLLM_KEY"
    assert ours.request({}, "k").headers["authorization"] == "Bearer k"


def test_another_address_is_another_identity():
    """The same name on another server may be another model."""
    assert compatible().identity()["base_url"] == BASE
    assert compatible(base_url=BASE + "/").identity() == compatible().identity()
    assert compatible(base_url="http://other:8000/v1").identity() != compatible().identity()


def completion(finish="stop", usage=None, **message):
    """Return the least that a local server may send."""
    body = {"choices": [{"finish_reason": finish, "message": {"role": "assistant", "content": "hi"} | message}]}
    return body if usage is None else body | {"usage": usage}


def test_a_bare_completion_is_an_answer():
    """Id, model and usage may be missing; what is missing stays None."""
    assert compatible().read(response(completion())) == Reply(
        kind=Kind.OK,
        text="hi",
        finish_reason=FinishReason.STOP,
        raw_finish_reason="stop",
        response_model=None,
        usage=Usage(),
    )


@pytest.mark.parametrize(
    ("body", "kind", "finish", "text"),
    [
        pytest.param(completion(None), Kind.OK, FinishReason.STOP, "hi", id="no-finish-reason"),
        pytest.param(completion("eos"), Kind.OK, FinishReason.STOP, "hi", id="unknown-finish-reason"),
        pytest.param(completion("LENGTH"), Kind.TRUNCATED, FinishReason.LENGTH, "hi", id="upper-case"),
        pytest.param(completion("model_length"), Kind.TRUNCATED, FinishReason.LENGTH, "hi", id="mistral"),
        pytest.param(
            completion(content=[{"type": "text", "text": "a"}, {"type": "x"}, {"type": "text", "text": "b"}]),
            Kind.OK,
            FinishReason.STOP,
            "ab",
            id="parts",
        ),
        pytest.param(completion(reasoning_content="hm"), Kind.OK, FinishReason.STOP, "hi", id="reasoning"),
    ],
)
def test_what_servers_say_differently_is_understood(body, kind, finish, text):
    """Finish reasons in other words, content in parts and reasoning beside it are all read."""
    outcome = compatible().read(response(body))
    assert (outcome.kind, outcome.finish_reason, outcome.text) == (kind, finish, text)


def test_null_details_are_no_counters():
    """Details may be null, as vLLM sends them unless told otherwise."""
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6, "prompt_tokens_details": None}
    assert compatible().read(response(completion(usage=usage))).usage == Usage(5, 1)


@pytest.mark.parametrize("finish", ["error", "abort"])
def test_an_answer_broken_off_is_no_answer(finish):
    """Text may be there, but the server itself says that it is not whole."""
    outcome = compatible().read(response(completion(finish)))
    assert (outcome.kind, outcome.code, outcome.may_be_billed) == (Kind.SERVER_ERROR, finish, True)


LLAMA_OVERFLOW = {
    "error": {
        "code": 400,
        "message": "request (8031 tokens) exceeds the available context size (2048 tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 8031,
        "n_ctx": 2048,
    }
}
VLLM_OVERFLOW = {
    "object": "error",
    "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
ERRORS = [
    pytest.param(LLAMA_OVERFLOW, 400, Kind.CONTEXT_LENGTH_EXCEEDED, "exceed_context_size_error", id="llama-overflow"),
    pytest.param(VLLM_OVERFLOW, 400, Kind.CONTEXT_LENGTH_EXCEEDED, "BadRequestError", id="old-vllm-overflow"),
    pytest.param({"error": VLLM_OVERFLOW}, 400, Kind.CONTEXT_LENGTH_EXCEEDED, "BadRequestError", id="vllm-overflow"),
    pytest.param(VLLM_OVERFLOW, 200, Kind.CONTEXT_LENGTH_EXCEEDED, "BadRequestError", id="old-vllm-in-200"),
    pytest.param(
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        503,
        Kind.OVERLOADED,
        "unavailable_error",
        id="llama-loading",
    ),
    pytest.param(
        {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
        404,
        Kind.NOT_FOUND,
        "NotFoundError",
        id="vllm-model",
    ),
    pytest.param({"error": "model 'x' not found"}, 404, Kind.NOT_FOUND, None, id="ollama-text"),
    pytest.param({"detail": "Unauthorized"}, 401, Kind.AUTH, None, id="fastapi-text"),
    pytest.param(
        {"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]},
        422,
        Kind.INVALID_REQUEST,
        None,
        id="fastapi-list",
    ),
    pytest.param({"error": {"message": None, "code": None}}, 500, Kind.SERVER_ERROR, None, id="null-words"),
    pytest.param(b"404 page not found", 404, Kind.NOT_FOUND, None, id="plain-text"),
]


@pytest.mark.parametrize("make", [compatible, llama])
@pytest.mark.parametrize(("body", "status", "kind", "code"), ERRORS)
def test_error_shapes_of_local_servers_are_read(body, status, kind, code, make):
    """Nested, top-level, plain text and FastAPI's: each has its kind and says something."""
    outcome = make().read(response(body, status))
    assert isinstance(outcome, CallError)
    assert (outcome.kind, outcome.code) == (kind, code)
    assert outcome.message


OVERFLOW_TEXTS = [
    "this model's maximum context length is 10",
    "input length and max_tokens exceed context limit",
    "the request exceeds the available context size",
    "The input token count (9) exceeds the maximum number of tokens allowed (8)",
    "Input tokens exceed the configured limit of 8",
    "The prompt (9) is longer than the model's context length 8",
    "over the model's maximum context limit",
    "Maximum input length is 8 tokens",
    "prompt is too long: 9 tokens > 8 maximum",
    'upstream said {"code": "context_length_exceeded"}',
]


@pytest.mark.parametrize("text", OVERFLOW_TEXTS)
def test_an_overflow_is_known_by_its_words(text):
    """Servers without codes are understood by text, in any case."""
    for words in (text, text.upper()):
        outcome = compatible().read(response({"error": {"message": words}}, 400))
        assert outcome.kind is Kind.CONTEXT_LENGTH_EXCEEDED


@pytest.mark.parametrize(
    "text", ["Invalid 'user': string too long; maximum context length is 64", "string_above_max_length", "Bad input."]
)
def test_lookalikes_of_an_overflow_are_plain_bad_requests(text):
    """A field that is too long is not a prompt that is too long."""
    assert compatible().read(response({"error": {"message": text}}, 400)).kind is Kind.INVALID_REQUEST


def test_an_embedded_server_gets_its_address_later():
    """Whoever starts it sets base_url; until then there is nothing to probe, and the identity never holds a port."""
    ours = llama(gguf="/models/tiny.gguf")
    assert ours.probe(None) is None
    identity = ours.identity()
    ours.base_url = "http://127.0.0.1:4321/v1"
    assert ours.request({}, None).url == "http://127.0.0.1:4321/v1/chat/completions"
    assert ours.probe(None).url == "http://127.0.0.1:4321/v1/models"
    assert ours.identity() == identity
    assert identity == {
        "provider": "llama_cpp",
        "api": "chat_completions",
        "gguf": "tiny.gguf",
        "body": {"model": "SmolLM2"},
    }


def test_a_grammar_takes_the_schema_with_its_lengths():
    """llama.cpp enforces maxLength and optional members itself; strict servers get them in words and as nulls."""
    sent = llama(SCHEMA).body(PROMPT)["response_format"]["json_schema"]
    assert sent == {"name": "answer", "strict": True, "schema": SCHEMA | {"additionalProperties": False}}
    strict = compatible(SCHEMA).body(PROMPT)["response_format"]["json_schema"]["schema"]
    assert strict["properties"]["label"] == {"type": ["string", "null"], "description": "[maxLength: 9]"}
