"""The Responses format of OpenAI and Azure (providers.md 2.3)."""

from collections.abc import Mapping
from typing import Any

from pipelines.sandbox.api_chat import REFUSAL_TEXT, invalid, named_schema, no_streams, wanted_schema
from pipelines.sandbox.exchange import Ask, Completion, Finish, Refused, bad_limit, text_length, tokens_of

_INCOMPLETE = {Finish.LENGTH: "max_output_tokens", Finish.FILTERED: "content_filter"}
_FAILURES = (
    {"code": "server_error", "message": "An error occurred while processing your request."},
    {"code": "rate_limit_exceeded", "message": "Rate limit reached while the response was being generated."},
)


class ResponsesApi:
    """Reads and answers Responses requests."""

    has_error_in_200 = True

    def read(self, body: Mapping[str, Any], model: str | None) -> Ask | Refused:
        """Return what the body asks for, or the 400 it gets."""
        model = model or body.get("model")
        if not isinstance(model, str) or not model:
            return invalid("Missing required parameter: 'model'.", "model", "missing_required_parameter")
        prompt = body.get("input")
        if not isinstance(prompt, str | list) or not prompt:
            return invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
        if body.get("stream") or body.get("background"):
            return no_streams()
        limit = body.get("max_output_tokens")
        if bad_limit(limit):
            return invalid(f"Invalid 'max_output_tokens': {limit!r}.", "max_output_tokens", "invalid_value")
        text = body.get("text")
        schema = _wanted_schema(text.get("format") if isinstance(text, dict) else None)
        if isinstance(schema, Refused):
            return schema
        return Ask(model, schema, limit, tokens_of(text_length(prompt) + text_length(body.get("instructions"))))

    def reply(self, completion: Completion) -> dict[str, Any]:
        """Return a `response` object."""
        finish = completion.finish
        reason = _INCOMPLETE.get(finish)
        status = "failed" if finish is Finish.ERROR else "incomplete" if reason else "completed"
        return {
            "id": f"resp_{completion.id}",
            "object": "response",
            "created_at": completion.created,
            "status": status,
            "background": False,
            "error": _FAILURES[completion.variant % len(_FAILURES)] if finish is Finish.ERROR else None,
            "incomplete_details": {"reason": reason} if reason else None,
            "instructions": None,
            "metadata": {},
            "model": completion.model,
            "output": [] if finish in (Finish.EMPTY, Finish.ERROR) else [_message(completion, status)],
            "parallel_tool_calls": True,
            "service_tier": "default",
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": None if finish is Finish.ERROR else _usage(completion),
        }


def _wanted_schema(wanted: Any) -> dict[str, Any] | Refused | None:
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        return named_schema(wanted, "text.format", is_strict=True)
    return wanted_schema(wanted, is_strict=True)


def _message(completion: Completion, status: str) -> dict[str, Any]:
    if completion.finish is Finish.REFUSAL:
        part: dict[str, Any] = {"type": "refusal", "refusal": REFUSAL_TEXT}
    else:
        part = {"type": "output_text", "text": completion.text, "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "id": f"msg_{completion.id}",
        "status": status,
        "role": "assistant",
        "content": [part],
    }


def _usage(completion: Completion) -> dict[str, Any]:
    return {
        "input_tokens": completion.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": completion.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": completion.input_tokens + completion.output_tokens,
    }
