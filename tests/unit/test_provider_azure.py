"""Azure OpenAI: its URLs, keys, content filter and errors; judged by the official SDK's own requests."""

import httpx2
import openai
import orjson
import pytest

from transforms.providers import make_provider
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import HttpResponse, RateLimits
from transforms.records.request import Prompt
from transforms.records.settings import ModelParams, ModelSettings

PROMPT = Prompt(None, (("user", "Good."),))
MESSAGES = [{"role": "user", "content": "Good."}]


def provider(**changes):
    """Return the adapter for a job's model."""
    settings = {
        "provider": "azure_openai",
        "name": "gpt-4o",
        "deployment": "my-gpt",
        "base_url": "https://res.openai.azure.com",
        "params": ModelParams(max_output_tokens=9),
    }
    return make_provider(ModelSettings(**(settings | changes)), None)


def sent_by_sdk(make_client, call):
    """Return the request that an official client makes in `call(client)`."""
    seen = []

    def handle(request):
        seen.append(request)
        return httpx2.Response(500, json={})

    client = make_client(max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(handle)))
    with pytest.raises(openai.InternalServerError):
        call(client)
    return seen[0]


def dated_client(version):
    """Return a maker of the SDK's Azure client."""
    return lambda **more: openai.AzureOpenAI(
        azure_endpoint="https://res.openai.azure.com", api_version=version, api_key="k", **more
    )


def v1_client(**more):
    """Return the plain client pointed at Azure's v1 URL, as the documentation shows it."""
    return openai.OpenAI(base_url="https://res.openai.azure.com/openai/v1/", api_key="k", **more)


def chat(client):
    """Make a chat call."""
    client.chat.completions.create(model="my-gpt", messages=MESSAGES, max_completion_tokens=9)


def respond(client):
    """Make a Responses call."""
    client.responses.create(model="my-gpt", input=MESSAGES, max_output_tokens=9)


@pytest.mark.parametrize(
    ("changes", "make_client", "call", "auth"),
    [
        pytest.param({"api_version": "2024-10-21"}, dated_client("2024-10-21"), chat, "api-key", id="dated-chat"),
        pytest.param(
            {"api_version": "2025-04-01-preview", "api": "responses"},
            dated_client("2025-04-01-preview"),
            respond,
            "api-key",
            id="dated-responses",
        ),
        pytest.param({"auth": "bearer"}, v1_client, chat, "authorization", id="v1-chat"),
        pytest.param({"auth": "bearer", "api": "responses"}, v1_client, respond, "authorization", id="v1-responses"),
    ],
)
def test_a_request_is_what_the_sdk_would_send(changes, make_client, call, auth):
    """URL, key header and body equal the official client's in each URL family."""
    ours = provider(**changes)
    request = ours.request(ours.body(PROMPT), "k")
    theirs = sent_by_sdk(make_client, call)
    assert request.url == str(theirs.url)
    assert request.headers[auth] == theirs.headers[auth]
    assert len({"api-key", "authorization"} & request.headers.keys()) == 1
    assert orjson.loads(request.body) == orjson.loads(theirs.content)


@pytest.mark.parametrize("ending", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
def test_the_endpoint_may_be_given_with_or_without_its_path(ending):
    """People copy the address from different pages of the portal."""
    ours = provider(base_url="https://res.openai.azure.com" + ending)
    assert ours.request({}, "k").url == "https://res.openai.azure.com/openai/v1/chat/completions"


def test_the_key_goes_as_api_key_unless_the_job_says_bearer():
    """One of the two headers is sent, never both."""
    assert provider().request({}, "k").headers["api-key"] == "k"
    assert "api-key" not in provider(auth="bearer").request({}, "k").headers


def test_names_and_identity():
    """The deployment is asked for, the model is for prices, and the host is part of the identity."""
    ours = provider()
    assert (ours.name, ours.request_model, ours.price_model) == ("azure.ai.openai", "my-gpt", "gpt-4o")
    assert (ours.key_env, ours.max_output_tokens) == ("AZURE_OPENAI_API_KEY", 9)
    assert ours.identity() == {
        "provider": "azure.ai.openai",
        "api": "chat_completions",
        "base_url": "res.openai.azure.com",
        "body": {"model": "my-gpt", "max_completion_tokens": 9},
    }
    assert provider(deployment="other").identity() != ours.identity()
    assert provider(base_url="https://other.openai.azure.com").identity() != ours.identity()
    assert provider(api_version="2024-10-21").identity() == ours.identity()


def test_the_probe_follows_the_url_family():
    """The models list is asked for with the same version as the calls."""
    assert provider().probe("k").url == "https://res.openai.azure.com/openai/v1/models"
    dated = provider(api_version="2024-10-21").probe("k")
    assert dated.url == "https://res.openai.azure.com/openai/models?api-version=2024-10-21"
    assert dated.headers["api-key"] == "k"


def response(body, status=200, **headers):
    """Return a response with a JSON body."""
    return HttpResponse(status, {n.replace("_", "-"): v for n, v in headers.items()}, orjson.dumps(body))


SAFE = {"hate": {"filtered": False, "severity": "safe"}}
BLOCKED = {
    "hate": {"filtered": False, "severity": "safe"},
    "violence": {"filtered": True, "severity": "high"},
    "jailbreak": {"detected": True, "filtered": True},
}


def completion(finish, content, results):
    """Return a chat completion with Azure's additions."""
    return {
        "id": "c",
        "model": "gpt-4o-2024-11-20",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "content_filter_results": results,
                "message": {"role": "assistant", "content": content},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }


def test_filter_annotations_do_not_disturb_an_answer():
    """Annotations that let the text pass, or a filter that was down, leave a normal answer."""
    down = {"error": {"code": "content_filter_error", "message": "The filter did not run."}}
    for results in (SAFE, down):
        outcome = provider().read(response(completion("stop", "hi", results)))
        assert (outcome.kind, outcome.text, outcome.explanation) == (Kind.OK, "hi", None)


@pytest.mark.parametrize("content", [None, "partly"])
def test_a_filtered_answer_says_what_was_filtered(content):
    """HTTP 200 with finish reason content_filter is its own outcome."""
    outcome = provider().read(response(completion("content_filter", content, BLOCKED)))
    assert (outcome.kind, outcome.text) == (Kind.CONTENT_FILTERED, content)
    assert outcome.explanation == "filtered: violence (high), jailbreak"


@pytest.mark.parametrize("spelling", ["content_filter_result", "content_filter_results"])
@pytest.mark.parametrize("code", ["content_filter", None])
def test_a_filtered_prompt_is_a_400_in_both_spellings(spelling, code):
    """The prompt's filter answers 400 and says what was filtered in `innererror`."""
    inner = {"code": "ResponsibleAIPolicyViolation", spelling: BLOCKED}
    body = {
        "error": {
            "message": "Filtered.",
            "type": None,
            "param": "prompt",
            "code": code,
            "status": 400,
            "innererror": inner,
        }
    }
    outcome = provider().read(response(body, 400))
    assert (outcome.kind, outcome.code) == (Kind.CONTENT_FILTERED, code)
    assert outcome.message == "Filtered. (filtered: violence (high), jailbreak)"


RATE = (
    "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token rate "
    "limit of your current OpenAI S0 pricing tier. Please go here: https://aka.ms/oai/quotaincrease"
)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        pytest.param(400, "OperationNotSupported", "Not this operation.", Kind.NOT_FOUND, id="batch-deployment"),
        pytest.param(401, "401", "Access denied due to invalid subscription key.", Kind.AUTH, id="key"),
        pytest.param(403, "Forbidden", "Blocked by a network rule.", Kind.PERMISSION, id="network"),
        pytest.param(403, None, "Out of call volume quota.", Kind.QUOTA_EXHAUSTED, id="volume"),
        pytest.param(404, "DeploymentNotFound", "No such deployment.", Kind.NOT_FOUND, id="deployment"),
        pytest.param(429, "429", RATE, Kind.RATE_LIMITED, id="rate"),
        pytest.param(429, None, "We are temporarily unable to process your request.", Kind.OVERLOADED, id="capacity"),
        pytest.param(429, None, "The system is experiencing high demand.", Kind.OVERLOADED, id="demand"),
        pytest.param(429, None, "You exceeded your current quota.", Kind.QUOTA_EXHAUSTED, id="quota"),
        pytest.param(500, "InternalServerError", "Oops.", Kind.SERVER_ERROR, id="500"),
        pytest.param(503, None, "Busy.", Kind.OVERLOADED, id="503"),
    ],
)
def test_errors_become_kinds(status, code, message, kind):
    """Each row of Azure's error table has its kind; the message keeps the provider's words."""
    outcome = provider().read(response({"error": {"code": code, "message": message}}, status))
    assert (outcome.kind, outcome.code) == (kind, code)
    assert outcome.message.startswith(message)


@pytest.mark.parametrize("code", ["DeploymentNotFound", "OperationNotSupported"])
def test_a_wrong_deployment_names_the_setting(code):
    """The person who must act reads which key to change."""
    outcome = provider().read(response({"error": {"code": code, "message": "No."}}, 404))
    assert "model.deployment" in outcome.message


def test_ids_and_plain_seconds():
    """apim-request-id comes first, and resets are plain seconds."""
    ours = provider()
    assert ours.request_id(response({}, apim_request_id="a", x_request_id="x")) == "a"
    assert ours.request_id(response({}, x_request_id="x")) == "x"
    headers = {"x_ratelimit_limit_tokens": "9", "x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "10"}
    assert ours.rate_limits(response({}, **headers), 0.0) == RateLimits(None, None, None, 9, 0, 10.0)
    assert ours.read(response({"error": {"message": RATE}}, 429, **headers)).retry_after_s == 10.0
    assert ours.read(response({"error": {"message": RATE}}, 429, retry_after_ms="2000")).retry_after_s == 2.0
