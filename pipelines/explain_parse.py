"""How a recorded answer became a value: told by reading it again, with the rules that read it in the run.

A run records the answer and the value, not the steps between; the rules are pure, so they give the same steps again.
"""

from collections.abc import Callable
from typing import Any

import orjson

from transforms.records.errors import AnswerError, ConfigError
from transforms.rules.answer import AnswerReader
from transforms.rules.answer_text import NotJsonError, find_json, read_json, recover_json, unfenced

_KINDS = (dict, list)
#: What reading took, in the order of trying; the words go on with "the answer".
_STEPS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("as_is", "was JSON as it stood", read_json),
    ("fence_stripped", "was JSON inside a code fence, which was taken off", lambda text: read_json(unfenced(text))),
    ("found_in_text", "had its JSON inside other text, which was left out", lambda text: find_json(text, _KINDS)),
    (
        "recovered",
        "was almost JSON; its quotes, commas or brackets were mended",
        lambda text: recover_json(text, _KINDS),
    ),
)


def tell_parse(text: str | None, answer: dict[str, Any], *, is_whole: bool = True) -> dict[str, Any]:
    """Tell how an answer's text was read.

    Args:
        text: the answer as the model gave it; None where the audit does not have it.
        answer: `answer` of the job, as its manifest has it.
        is_whole: the text stands as it came: nothing in it was redacted.

    Returns:
        {"how": as_is, fence_stripped, found_in_text, recovered, plain_text, unreadable or unknown, "is_mended",
        "is_fitted": a known slip was put right by the schema (`answer_mend.py`), "is_schema_checked", "value": what came
        out, "problem": why nothing did, "words"}; what can't be told is null.
    """
    if text is None:
        return _told(
            "unknown", "its text was not kept, so how it was read can't be told; its value passed the job's check"
        )
    if not is_whole:
        return _told("unknown", "parts of its text were redacted, so how it was read can't be told")
    schema = answer.get("schema")
    if schema is None and not answer.get("python"):
        return _told(
            "plain_text", "is plain text: taken as it is, without the white space around it", value=text.strip()
        )
    how, words, found = _read(text)
    if schema is None:
        # The schema is made by the user's own code, which is not for this command to run.
        return _told(how, f"{words}; the schema of {answer['python']} was applied by the run", value=found)
    return _checked(how, words, found, text, schema)


def _read(text: str) -> tuple[str, str, Any]:
    for how, words, step in _STEPS:
        try:
            return how, words, step(text)
        except NotJsonError:
            continue
    return "unreadable", "is not JSON", None


def _checked(how: str, words: str, found: Any, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    try:
        value = orjson.loads(AnswerReader(schema).read(text))
    except (AnswerError, ConfigError) as error:
        return _told(how, f"{words}; refused", is_schema_checked=True, problem=str(error))
    if how == "unreadable":
        return _told("plain_text", "is the text that the schema asks for", value=value, is_schema_checked=True)
    is_fitted = value != found
    fitted = (
        "with a slip put right (letter case, or null for an absent member), and checked against the schema"
        if is_fitted
        else "checked against the schema"
    )
    return _told(how, f"{words}; {fitted}", value=value, is_fitted=is_fitted, is_schema_checked=True)


def _told(how: str, words: str, **facts: Any) -> dict[str, Any]:
    is_mended = None if how == "unknown" else how not in ("as_is", "plain_text", "unreadable")
    blank = {"is_fitted": None, "is_schema_checked": None, "value": None, "problem": None}
    return {"how": how, "is_mended": is_mended, **blank, **facts, "words": words}
