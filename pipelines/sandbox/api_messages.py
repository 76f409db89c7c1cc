"""The Messages format of Anthropic (providers.md 4.2)."""

from collections.abc import Mapping
from typing import Any

from pipelines.sandbox.exchange import (
    Ask,
    Completion,
    Finish,
    Problem,
    Refused,
    bad_limit,
    text_length,
    tokens_of,
)
from pipelines.sandbox.strict import anthropic_objection, is_schema

_STOP = {Finish.LENGTH: "max_tokens"}
_CATEGORIES = ("cyber", "bio", "general_harms", None)


class MessagesApi:
    """Reads and answers Messages requests."""

    has_error_in_200 = False

    def read(self, body: Mapping[str, Any], model: str | None) -> Ask | Refused:  # noqa: ARG002 - no path names it
        """Return what the body asks for, or the 400 it gets."""
        objection = _objection(body)
        if objection:
            return Refused(Problem.INVALID, objection)
        config = body.get("output_config")
        wanted = config.get("format") if isinstance(config, dict) else None
        schema = None
        if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
            schema = wanted.get("schema")
            trouble = anthropic_objection(schema) if is_schema(schema) else "schema: is no valid JSON Schema"
            if trouble:
                return Refused(Problem.INVALID, f"output_config.format.{trouble}")
        characters = text_length(body["messages"]) + text_length(body.get("system"))
        return Ask(str(body["model"]), schema, body["max_tokens"], tokens_of(characters))

    def reply(self, completion: Completion) -> dict[str, Any]:
        """Return a `message` object; a filtered answer is a refusal here."""
        is_refusal = completion.finish in (Finish.REFUSAL, Finish.FILTERED)
        details = None
        if is_refusal:
            category = _CATEGORIES[completion.variant % len(_CATEGORIES)]
            details = {"type": "refusal", "category": category, "explanation": "Declined in rehearsal."}
        is_empty = completion.finish is Finish.EMPTY
        return {
            "id": f"msg_{completion.id}",
            "type": "message",
            "role": "assistant",
            "model": completion.model,
            "content": [] if is_empty else [{"type": "text", "text": completion.text}],
            "stop_reason": "refusal" if is_refusal else _STOP.get(completion.finish, "end_turn"),
            "stop_sequence": None,
            "stop_details": details,
            "usage": {
                "input_tokens": completion.input_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
                "output_tokens": completion.output_tokens,
                "output_tokens_details": {"thinking_tokens": 0},
                "service_tier": "standard",
            },
        }


def _objection(body: Mapping[str, Any]) -> str | None:
    for name in ("model", "max_tokens", "messages"):
        if body.get(name) is None:
            return f"{name}: Field required"
    if bad_limit(body["max_tokens"]):
        return "max_tokens: Input should be greater than or equal to 1"
    messages = body["messages"]
    if not isinstance(messages, list) or not messages:
        return "messages: at least one message is required"
    if any(not isinstance(message, dict) or message.get("role") == "system" for message in messages):
        return 'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter'
    if body.get("stream"):
        return "stream: The rehearsal provider does not stream; leave it out"
    return None
