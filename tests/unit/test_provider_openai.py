"""providers/openai: what is sent, held against the official SDK."""

import httpx2
import openai
import orjson
import pytest

from tests.unit.provider_openai_builders import FREE, PROMPT, SCHEMA, provider
from transforms.records.request import Prompt


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
