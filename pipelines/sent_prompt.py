"""What was sent and what came back, read out of the audit's payloads in any provider's shape."""

from typing import Any

import orjson


def read_prompt(request_json: str) -> dict[str, Any]:
    """Return {"system", "turns": [{"role", "text"}], "note"} of a request body.

    Knows chat completions, the Responses API and Anthropic's Messages; of a body that was kept as a hash only, and
    of any other, the note says what there is.
    """
    try:
        body = orjson.loads(request_json)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        return {"system": None, "turns": [], "note": "the request's body can't be read"}
    if set(body) == {"sha256", "bytes"}:
        note = f"kept as a hash only (audit.payloads: hash): sha256 {body['sha256']}, {body['bytes']} bytes"
        return {"system": None, "turns": [], "note": note}
    given = body.get("messages", body.get("input"))
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    turns = [_turn(item) for item in items if isinstance(item, dict)]
    system = [turn["text"] for turn in turns if turn["role"] in ("system", "developer")]
    system += [_text(body[key]) for key in ("system", "instructions") if body.get(key)]
    asked = [turn for turn in turns if turn["role"] not in ("system", "developer")]
    return {"system": "\n".join(system) or None, "turns": asked, "note": None}


def answer_text(response_json: str | None) -> str | None:
    """Return the text of an answer's body, or None where there is none to see (an error, a hash, nothing kept)."""
    try:
        body = orjson.loads(response_json or "null")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    if isinstance(choices, list):
        messages = [choice.get("message") for choice in choices[:1] if isinstance(choice, dict)]
    else:
        output = body.get("output")
        messages = output if isinstance(output, list) else [body]
    texts = [_text(message.get("content")) for message in messages if isinstance(message, dict)]
    return "\n".join(text for text in texts if text) or None


def _turn(item: dict[str, Any]) -> dict[str, str]:
    return {"role": str(item.get("role", "user")), "text": _text(item.get("content"))}


def _text(content: Any) -> str:
    """Return a content's text: text itself, or the texts of its parts."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def read_error(error_json: str | None) -> dict[str, Any] | None:
    """Return what a call's error_json holds, or its text where that is no object."""
    if error_json is None:
        return None
    try:
        found = orjson.loads(error_json)
    except orjson.JSONDecodeError:
        return {"message": error_json}
    return found if isinstance(found, dict) else {"message": str(found)}
