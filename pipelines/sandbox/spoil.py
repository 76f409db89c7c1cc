"""Answers that are wrong in the ways models get JSON wrong; pure and deterministic."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from pipelines.sandbox.answers import Schema, resolve
from pipelines.sandbox.draws import Draws

FORMS = ("broken", "wrong_value", "fenced", "prose")


def spoil(value: Any, schema: Schema, draws: Draws) -> str:
    """Return the text of a wrong answer made from a right one.

    Four forms: JSON that stops before its end though the model says it finished, a value the schema forbids, the right
    JSON inside a Markdown fence, the right JSON between sentences.
    """
    form = FORMS[draws.below(len(FORMS))]
    text = orjson.dumps(value).decode()
    if form == "fenced":
        return f"```json\n{orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()}\n```"
    if form == "prose":
        return f"Here is the answer you asked for:\n{text}\nTell me if you need anything else."
    if form == "wrong_value":
        return orjson.dumps(wrong_value(value, schema)).decode()
    return break_json(text)


def break_json(text: str) -> str:
    """Return the text without what closes it, so that no parser takes it."""
    opened = re.sub(r"[}\]\"]+$", "", text)
    return opened if opened and opened != text else '{"' + text


def wrong_value(value: Any, schema: Schema) -> Any:
    """Return the value with one part replaced by what the schema forbids there."""
    if isinstance(value, dict) and value and isinstance(schema, dict):
        properties = _seen_through(schema, schema).get("properties", {})
        name = next((name for name in value if _is_strict(properties.get(name), schema)), None)
        if name is not None:
            return {**value, name: _unlike(value[name])}
    return _unlike(value)


def _seen_through(schema: Mapping[str, Any], root: Schema) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    target = resolve(root, schema["$ref"])
    return _seen_through(target, root) if isinstance(target, dict) else {}


def _is_strict(schema: Any, root: Schema) -> bool:
    """Tell whether the schema names one type or a list of values, so that another type is surely wrong."""
    if not isinstance(schema, dict):
        return False
    seen = _seen_through(schema, root)
    return "enum" in seen or "const" in seen or isinstance(seen.get("type"), str)


def _unlike(value: Any) -> Any:
    return "not one of the listed values" if not isinstance(value, str) else ["not", "one", "of", "the", "values"]
