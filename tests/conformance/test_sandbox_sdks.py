"""The official SDKs take the sandbox for the provider: successes, typed errors, headers, structured answers."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import anthropic
import openai
import orjson
import pytest
from pydantic import BaseModel, ConfigDict

from pipelines.sandbox.server import RunningSandbox

PROMPT = "Label the sentiment of this review: it works."


class Label(StrEnum):
    """The three sentiments."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NEUTRAL = "neutral"


class Review(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(extra="forbid")

    label: Label
    topics: list[str]
    author: str | None


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSandbox]:
    """One sandbox for the whole file, with limits so that it sends rate-limit headers."""
    with RunningSandbox(requests_per_minute=6000, tokens_per_minute=1_000_000) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: RunningSandbox) -> RunningSandbox:
    """The sandbox as it was at its start."""
    running.set_faults()
    running.reset()
    return running


def openai_style(sandbox: RunningSandbox, style: str, key: str = "k") -> tuple[Any, str]:
    """Return a client of the OpenAI SDK for a provider, and the model to ask for."""
    url = sandbox.url
    match style:
        case "openai":
            return openai.OpenAI(base_url=sandbox.base_url("openai"), api_key=key, max_retries=0), "gpt-4o-2024-08-06"
        case "azure dated":
            client = openai.AzureOpenAI(
                azure_endpoint=sandbox.base_url("azure_openai"), api_version="2024-10-21", api_key=key, max_retries=0
            )
            return client, "my-deployment"
        case "azure v1":
            return openai.OpenAI(base_url=f"{url}/openai/v1/", api_key=key, max_retries=0), "my-deployment"
        case _:
            client = openai.OpenAI(base_url=sandbox.base_url("openrouter"), api_key=key, max_retries=0)
            return client, "openai/gpt-4o-mini"


def chat(sandbox: RunningSandbox, style: str, key: str = "k") -> Any:
    """Ask the prompt, raw response."""
    client, model = openai_style(sandbox, style, key)
    with client:
        return client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": PROMPT}]
        )


STYLES = ["openai", "azure dated", "azure v1", "openrouter"]


@pytest.mark.parametrize("style", STYLES)
def test_chat_completions_answer(sandbox: RunningSandbox, style: str) -> None:
    """Text, usage and id arrive where the SDK's types say."""
    completion = chat(sandbox, style).parse()
    assert completion.choices[0].message.content.endswith(".")
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert sandbox.bill()["answered"] == 1


@pytest.mark.parametrize("style", STYLES)
def test_chat_completions_parse_into_a_pydantic_model(sandbox: RunningSandbox, style: str) -> None:
    """The SDK's own strict schema passes the sandbox's checks, and the answer its validation."""
    client, model = openai_style(sandbox, style)
    with client:
        completion = client.chat.completions.parse(
            model=model, messages=[{"role": "user", "content": PROMPT}], response_format=Review
        )
    assert isinstance(completion.choices[0].message.parsed, Review)


@pytest.mark.parametrize("style", ["openai", "azure dated", "azure v1"])
def test_responses_answer_and_parse(sandbox: RunningSandbox, style: str) -> None:
    """`text.format` by hand and by model; the output text is found by the SDK."""
    client, model = openai_style(sandbox, style)
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["a", "b"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    named = {"type": "json_schema", "name": "review", "strict": True, "schema": schema}
    with client:
        response = client.responses.create(model=model, input=PROMPT, text={"format": named})
        assert orjson.loads(response.output_text)["label"] in ("a", "b")
        assert response.status == "completed"
        assert response.usage.input_tokens > 0
        parsed = client.responses.parse(model=model, input=PROMPT, text_format=Review)
        assert isinstance(parsed.output_parsed, Review)


@pytest.mark.parametrize("style", STYLES)
def test_openai_errors_have_their_classes(sandbox: RunningSandbox, style: str) -> None:
    """401, 429, 500 and 503, each as the exception a program would catch."""
    with pytest.raises(openai.AuthenticationError):
        chat(sandbox, style, key="bad-key")
    for fault, kind in (
        ("rate_limit", openai.RateLimitError),
        ("server_error", openai.InternalServerError),
        ("bad_gateway", openai.InternalServerError),
        ("overloaded", openai.InternalServerError),
        ("reset", openai.APIConnectionError),
    ):
        sandbox.set_faults(**{fault: 1})
        with pytest.raises(kind):
            chat(sandbox, style)


def test_openai_billing_stops_are_told_by_their_code(sandbox: RunningSandbox) -> None:
    """A 429 that no wait will cure has type insufficient_quota."""
    with pytest.raises(openai.RateLimitError) as caught:
        chat(sandbox, "openai", key="no-credit")
    assert caught.value.type == "insufficient_quota"
    assert caught.value.code in ("insufficient_quota", "credit_balance_exhausted")


@pytest.mark.parametrize("style", ["openai", "azure dated"])
def test_rate_limit_headers_are_there(sandbox: RunningSandbox, style: str) -> None:
    """OpenAI resets are Go durations, Azure's are plain seconds."""
    headers = chat(sandbox, style).headers
    assert headers["x-ratelimit-limit-requests"] == "6000"
    assert headers["x-ratelimit-limit-tokens"] == "1000000"
    assert int(headers["x-ratelimit-remaining-tokens"]) < 1_000_000
    reset = headers["x-ratelimit-reset-requests"]
    assert reset.isdigit() if style == "azure dated" else reset.endswith("ms")
    assert headers["x-request-id"]


def test_sdk_retries_get_through_a_fault_that_passes(sandbox: RunningSandbox) -> None:
    """With its default retries the SDK does not notice one 429; the bill has one request."""
    sandbox.set_faults(storms=({"from_request": 0, "to_request": 1},), retry_after_s=0.01)
    with openai.OpenAI(base_url=sandbox.base_url("openai"), api_key="k", max_retries=2) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": PROMPT}])
    assert sandbox.stats()["by_status"] == {"200": 1, "429": 1}
    assert sandbox.bill()["accepted"] == 1


@pytest.mark.parametrize("style", ["openai", "azure v1", "openrouter"])
def test_models_are_listed(sandbox: RunningSandbox, style: str) -> None:
    """The free probe of a key works through the SDK."""
    client, _ = openai_style(sandbox, style)
    with client:
        assert [model.id for model in client.models.list()]


def claude(sandbox: RunningSandbox, key: str = "k", **more: Any) -> Any:
    """Ask the prompt of the Messages API with the SDK's default version (2026-10-21), raw response."""
    with anthropic.Anthropic(base_url=sandbox.base_url("anthropic"), api_key=key, max_retries=0) as client:
        return client.messages.with_raw_response.create(
            model="claude-haiku-4-5", max_tokens=64, messages=[{"role": "user", "content": PROMPT}], **more
        )


def test_messages_answer_with_headers(sandbox: RunningSandbox) -> None:
    """Text, usage, request id, and rate limits with RFC 3339 resets."""
    raw = claude(sandbox)
    message = raw.parse()
    assert message.content[0].text.endswith(".")
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens == (len(PROMPT) + 3) // 4
    assert raw.headers["request-id"].startswith("req_")
    assert raw.headers["anthropic-ratelimit-requests-limit"] == "6000"
    assert raw.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")


def test_messages_answer_a_json_schema(sandbox: RunningSandbox) -> None:
    """Schema by hand in output_config, and a pydantic model through the SDK's transformation."""
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": ["a", "b"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    message = claude(sandbox, output_config={"format": {"type": "json_schema", "schema": schema}}).parse()
    assert orjson.loads(message.content[0].text)["label"] in ("a", "b")
    described = anthropic.transform_schema(Review)
    message = claude(sandbox, output_config={"format": {"type": "json_schema", "schema": described}}).parse()
    Review.model_validate_json(message.content[0].text)


def test_anthropic_errors_have_their_classes(sandbox: RunningSandbox) -> None:
    """401, 429, 500 and 529; sampling parameters are a 400 under the default version."""
    with pytest.raises(anthropic.AuthenticationError):
        claude(sandbox, key="bad-key")
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        claude(sandbox, extra_body={"temperature": 0})
    for fault, status, kind in (
        ("rate_limit", 429, anthropic.RateLimitError),
        ("server_error", 500, anthropic.InternalServerError),
        ("overloaded", 529, anthropic.APIStatusError),
    ):
        sandbox.set_faults(**{fault: 1})
        with pytest.raises(kind) as caught:
            claude(sandbox)
        assert caught.value.status_code == status
    assert caught.value.type == "overloaded_error"
    sandbox.set_faults(reset=1)
    with pytest.raises(anthropic.APIConnectionError):
        claude(sandbox)


def test_anthropic_lists_models_and_refuses_in_200(sandbox: RunningSandbox) -> None:
    """The list is paged as the SDK expects; a refusal is a message with its details."""
    with anthropic.Anthropic(base_url=sandbox.base_url("anthropic"), api_key="k", max_retries=0) as client:
        assert next(iter(client.models.list())).type == "model"
    sandbox.set_faults(refusal=1)
    message = claude(sandbox).parse()
    assert message.stop_reason == "refusal"
    assert message.stop_details.type == "refusal"
