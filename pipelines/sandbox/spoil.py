"""Answers that are wrong in the ways models get JSON wrong; pure and deterministic."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson

from pipelines.sandbox.answers import Schema
from pipelines.sandbox.draws import Draws

_FORMS = ("broken", "wrong_value", "fenced", "prose")
#: What stands in for a right value; one of them is of another type than any schema with a single type asks for.
_ODD: tuple[Any, ...] = ("not one of the listed values", ["not", "of", "this", "type"], -0.5)


def spoil(value: Any, schema: Schema, draws: Draws) -> str:
    """Return the text of a wrong answer made from a right one.

    Four forms: JSON that stops before its end though the model says it finished, a value the schema forbids, the right
    JSON inside a Markdown fence, the right JSON between sentences.
    """
    form = _FORMS[draws.below(len(_FORMS))]
    text = orjson.dumps(value).decode()
    if form == "fenced":
        return f"```json\n{orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()}\n```"
    if form == "prose":
        return f"Here is the answer you asked for:\n{text}\nTell me if you need anything else."
    wrong = wrong_value(value, schema) if form == "wrong_value" else None
    return break_json(text) if wrong is None else orjson.dumps(wrong).decode()


def break_json(text: str) -> str:
    """Return the text without what closes it, so that no parser takes it."""
    opened = re.sub(r"[}\]\"]+$", "", text)
    return opened if opened and opened != text else '{"' + text


def wrong_value(value: Any, schema: Schema) -> Any:
    """Return the value with one part replaced so that the schema forbids it; for objects rather a member than the whole.

    Returns:
        None when the schema takes everything that was tried.
    """
    validator = jsonschema_rs.validator_for(schema if isinstance(schema, bool) else dict(schema))
    return next((wrong for wrong in _candidates(value) if not validator.is_valid(wrong)), None)


def _candidates(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name in value:
            yield from ({**value, name: odd} for odd in _ODD)
    yield from _ODD
