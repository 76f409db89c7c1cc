"""Chat Completions, the format of OpenAI, Azure and OpenRouter (providers.md 2.2)."""

from collections.abc import Mapping
from typing import Any

from pipelines.sandbox.exchange import Ask, Completion, Finish, Problem, Refused, bad_limit, text_length, tokens_of
from pipelines.sandbox.strict import is_schema, openai_objection

#: What JSON mode answers when no schema is given.
ANY_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
REFUSAL_TEXT = "I'm sorry, I can't help with that."

_FINISH = {Finish.LENGTH: "length", Finish.FILTERED: "content_filter", Finish.ERROR: "error"}


class ChatApi:
    """Reads and answers chat completion requests.

    Args:
        is_strict: whether schemas with `strict: true` are checked as OpenAI checks them (OpenRouter does not).
    """

    has_error_in_200 = False

    def __init__(self, *, is_strict: bool) -> None:
        self._is_strict = is_strict

    def read(self, body: Mapping[str, Any], model: str | None) -> Ask | Refused:
        """Return what the body asks for, or the 400 it gets."""
        model = model or body.get("model")
        if not isinstance(model, str) or not model:
            return invalid("you must provide a model parameter")
        messages = body.get("messages")
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        schema = _objection(body, limit) or wanted_schema(body.get("response_format"), is_strict=self._is_strict)
        if isinstance(schema, Refused):
            return schema
        return Ask(model, schema, limit, tokens_of(text_length(messages)))

    def reply(self, completion: Completion) -> dict[str, Any]:
        """Return a `chat.completion` object."""
        is_refusal = completion.finish is Finish.REFUSAL
        choice: dict[str, Any] = {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None if is_refusal else completion.text,
                "refusal": REFUSAL_TEXT if is_refusal else None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": _FINISH.get(completion.finish, "stop"),
        }
        return {
            "id": f"chatcmpl-{completion.id}",
            "object": "chat.completion",
            "created": completion.created,
            "model": completion.model,
            "choices": [] if completion.finish is Finish.EMPTY else [choice],
            "usage": {
                "prompt_tokens": completion.input_tokens,
                "completion_tokens": completion.output_tokens,
                "total_tokens": completion.input_tokens + completion.output_tokens,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": 0,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            },
            "service_tier": "default",
            "system_fingerprint": "fp_sandbox",
        }


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """Return a 400 in OpenAI's terms."""
    return Refused(Problem.INVALID, message, param, code)


def no_streams() -> Refused:
    """Return the 400 for `stream: true`, which is the sandbox's own."""
    return invalid("The rehearsal provider does not stream; leave 'stream' out.", "stream", "unsupported_value")


def wanted_schema(wanted: Any, *, is_strict: bool) -> dict[str, Any] | Refused | None:
    """Return the schema a `response_format` asks for, None for plain text, or the 400 it gets."""
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return None
    if wanted["type"] == "json_object":
        return ANY_OBJECT
    return named_schema(wanted.get("json_schema"), "response_format.json_schema", is_strict=is_strict)


def named_schema(named: Any, param: str, *, is_strict: bool) -> dict[str, Any] | Refused:
    """Return the schema of a `{name, schema, strict}` object, or what is wrong with it."""
    for name, kind in (("name", str), ("schema", dict)):
        if not isinstance(named, dict) or not isinstance(named.get(name), kind):
            text = f"Missing required parameter: '{param}.{name}'."
            return invalid(text, f"{param}.{name}", "missing_required_parameter")
    if not is_schema(named["schema"]):
        return invalid(f"Invalid schema for response_format '{named['name']}': it is no JSON Schema.", param)
    trouble = openai_objection(named["schema"]) if is_strict and named.get("strict") else None
    if trouble:
        text = f"Invalid schema for response_format '{named['name']}': {trouble}"
        return invalid(text, param.partition(".json_schema")[0], "invalid_json_schema")
    schema: dict[str, Any] = named["schema"]
    return schema


def _objection(body: Mapping[str, Any], limit: Any) -> Refused | None:
    messages = body.get("messages")
    if not isinstance(messages, list):
        return invalid("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    if not messages:
        return invalid("Invalid 'messages': empty array.", "messages", "empty_array")
    if body.get("stream"):
        return no_streams()
    if bad_limit(limit):
        return invalid(f"Invalid 'max_completion_tokens': {limit!r}.", "max_completion_tokens", "invalid_value")
    return None
