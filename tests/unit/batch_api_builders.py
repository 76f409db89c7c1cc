"""Batch adapters as jobs get them, what the official clients send, and results as the providers write them."""

from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
import orjson
import pytest

from transforms.providers import make_batch_api, make_provider
from transforms.providers.base import Provider
from transforms.providers.batch_base import BatchApi, CreateFacts
from transforms.records.reply import CallError, HttpRequest, HttpResponse
from transforms.records.request import Prompt
from transforms.records.settings import ModelSettings

PROMPT = Prompt("You label reviews.", (("user", "Good."),))
KEY = "k"
FACTS = CreateFacts("ab" * 32, 1, "20261121T053412-3f9a2c", "1f2e3d4c", 3)
SINCE_S = 1_700_000_000.0
CUSTOM_ID = "1f2e3d4c-" + "0" * 40


@dataclass(frozen=True)
class Made:
    """An adapter and the provider that it was made for."""

    api: BatchApi
    provider: Provider

    def line(self) -> dict[str, Any]:
        """Return the request line of a prompt, parsed."""
        line = self.api.line(CUSTOM_ID, self.provider.body(PROMPT))
        assert b"\n" not in line
        return orjson.loads(line)

    def outcome(self, row: dict[str, Any]) -> Any:
        """Return what a results line comes to: the provider's reading of its response, or its error."""
        line = self.api.read_line(orjson.dumps(row))
        assert (line.response is None) != (line.error is None)
        return line.error if line.response is None else self.provider.read(line.response)


def make(schema: dict[str, Any] | None = None, **settings: Any) -> Made:
    """Return the adapter for a job's model."""
    model = ModelSettings(**settings)
    provider = make_provider(model, schema)
    api = make_batch_api(model, schema, provider)
    assert api is not None
    return Made(api, provider)


def response(body: Any, status: int = 200) -> HttpResponse:
    """Return a response with a JSON body (or the bytes given)."""
    return HttpResponse(status, {}, body if isinstance(body, bytes) else orjson.dumps(body))


def sdk_request(make_client: Any, call: Any) -> httpx2.Request:
    """Return the request that an official client makes in `call(client)`."""
    seen = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        request.read()
        seen.append(request)
        return httpx2.Response(418, json={})

    client = make_client(max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(handle)))
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)):
        call(client)
    return seen[0]


def assert_same(ours: HttpRequest, theirs: httpx2.Request, *headers: str) -> None:
    """Assert equal method, address, body and the named headers."""
    assert (ours.method, parts_of(ours.url)) == (theirs.method, parts_of(str(theirs.url)))
    assert {name: ours.headers.get(name) for name in headers} == {name: theirs.headers.get(name) for name in headers}
    if ours.body:
        assert ours.headers["content-type"] == "application/json"
        assert orjson.loads(ours.body) == orjson.loads(theirs.content)
    else:
        assert "content-type" not in ours.headers


def parts_of(url: str) -> tuple[str, list[str]]:
    """Return an address and the pairs of its query in any order."""
    address, _, query = url.partition("?")
    return address, sorted(query.split("&"))


def kind_of(outcome: Any) -> str:
    """Return the kind of an error as text."""
    assert isinstance(outcome, CallError)
    return str(outcome.kind)


def completion(text: str = "hi", **changes: Any) -> dict[str, Any]:
    """Return a chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    } | changes


def row(status: Any = 200, body: Any = None, error: Any = None, **changes: Any) -> dict[str, Any]:
    """Return a results line in OpenAI's shape."""
    answer = {"status_code": status, "request_id": "4e7a", "body": completion() if body is None else body}
    return {"id": "batch_req_1", "custom_id": CUSTOM_ID, "response": answer, "error": error} | changes
