"""What tests of the OpenAI provider share: a provider, and replies of both its APIs."""

import orjson

from transforms.providers import make_provider
from transforms.records.reply import HttpResponse, Usage
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


def error(status, message="No.", error_type="invalid_request_error", code=None, **headers):
    """Return an error response in OpenAI's shape."""
    return response({"error": {"message": message, "type": error_type, "param": None, "code": code}}, status, **headers)
