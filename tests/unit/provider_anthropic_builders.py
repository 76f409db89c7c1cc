"""What tests of the Anthropic provider share: a provider, its replies, and what the official SDK sends."""

import anthropic
import httpx2
import orjson
import pytest

from transforms.providers import make_provider
from transforms.records.reply import HttpResponse
from transforms.records.request import Prompt
from transforms.records.settings import ModelParams, ModelSettings

PROMPT = Prompt("You label reviews.", (("user", "Good."), ("assistant", "{"), ("user", "Again.")))
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}, "n": {"type": "integer", "minimum": 1}}}
CLOSED = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "n": {"type": "integer", "description": "[minimum: 1]"}},
    "required": [],
    "additionalProperties": False,
}


def provider(schema=None, params=None, **changes):
    """Return the adapter for a job's model."""
    settings = {"provider": "anthropic", "name": "claude-sonnet-4-5", "params": ModelParams(**(params or {}))} | changes
    return make_provider(ModelSettings(**settings), schema)


def response(body, status=200, **headers):
    """Return a response with a JSON body (or the bytes given)."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def message(stop="end_turn", content=None, **changes):
    """Return a Message as Anthropic sends it."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": "hi", "citations": None}] if content is None else content,
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 200,
            "cache_read_input_tokens": 3000,
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 5},
        },
    } | changes


def sent_by_sdk(**call):
    """Return the request that the official SDK makes."""
    seen = []

    def handle(request):
        seen.append(request)
        return httpx2.Response(500, json={})

    client = anthropic.Anthropic(
        api_key="k", max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(handle))
    )
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(**call)
    return seen[0]
