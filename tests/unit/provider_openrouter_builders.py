"""What tests of the OpenRouter provider share: a provider, and its replies."""

import orjson

from transforms.providers import make_provider
from transforms.records.reply import HttpResponse
from transforms.records.request import Prompt
from transforms.records.settings import ModelParams, ModelSettings

PROMPT = Prompt(None, (("user", "Good."),))
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def provider(schema=None, params=None, **changes):
    """Return the adapter for a job's model."""
    settings = {
        "provider": "openrouter",
        "name": "openai/gpt-4o-mini",
        "params": ModelParams(**(params or {})),
    } | changes
    return make_provider(ModelSettings(**settings), schema)


def response(body, status=200, **headers):
    """Return a response with a JSON body (or the bytes given)."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def completion(finish="stop", native="stop", content="hi", usage=None, **choice):
    """Return a chat completion as OpenRouter sends it."""
    return {
        "id": "gen-1",
        "object": "chat.completion",
        "created": 1700000000,
        "provider": "OpenAI",
        "model": "openai/gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "native_finish_reason": native,
                "message": {"role": "assistant", "content": content, "refusal": None, "reasoning": None},
            }
            | choice
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "cost": 0.00014,
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": None},
        }
        | (usage or {}),
    }
