"""Careful reading of bytes and JSON from outside: every function takes anything and raises nothing.

Counters outside 0 .. 2**63-1, booleans, strings in a number's place: all read as None, never as 0.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

#: What `parse_json` returns for bytes that are not JSON (None is valid JSON).
NOT_JSON: Final = object()

MESSAGE_LIMIT = 2000
QUOTE_LIMIT = 500

_NOTHING: Final[Mapping[str, Any]] = {}
_MAX_COUNT = 2**63
#: Tiers that are their own names, known so that one need not be cleaned for each row.
_TIERS = frozenset({"default", "standard", "auto", "batch", "flex", "priority"})
#: The bytes that `to_json` wrote last and what they say: a row of a batch is read as soon as it is written. Bytes never
#: change, and these can't be another object while they are kept here; another thread's merely mean parsing again.
_last_written: list[tuple[bytes, Any]] = [(b"null", None)]
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|gsk)[-_][A-Za-z0-9_*.-]{8,}|\bBearer\s+\S+", re.IGNORECASE)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def to_json(value: Any) -> bytes:
    """Return a value as JSON. `parse_json` of the same bytes object gives the value itself, so it must not be changed.

    Raises:
        TypeError: it is nested too deeply to be written.
    """
    written = orjson.dumps(value)
    _last_written[0] = (written, value)
    return written


def parse_json(body: bytes) -> Any:
    """Return the JSON value, or NOT_JSON; skips blank lines and SSE comment lines before it (providers.md 10.2).

    An escaped half of a surrogate pair, which models do send, is read as U+FFFD, so that the value is Unicode.
    """
    written, value = _last_written[0]
    if body is written:
        return value
    if body[:1] != b"{":
        body = _skip_keep_alive(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_mended(body) if b"\\ud" in body or b"\\uD" in body else NOT_JSON


def _parse_mended(body: bytes) -> Any:
    # orjson refuses lone surrogates; the json module keeps them, and joins the pairs.
    try:
        text = json.dumps(json.loads(body.decode()), ensure_ascii=False)
        return orjson.loads(_LONE_SURROGATE.sub("\ufffd", text))
    except (ValueError, RecursionError):
        return NOT_JSON


def _skip_keep_alive(body: bytes) -> bytes:
    body = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    while body[:1] == b":":
        body = body.partition(b"\n")[2].lstrip()
    return body


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object as it is, anything else as an empty mapping."""
    return value if isinstance(value, dict) else _NOTHING


def first(value: Any) -> Mapping[str, Any]:
    """Return the first element of a JSON array when it is an object, else an empty mapping."""
    return mapping(value[0]) if isinstance(value, list) and value else _NOTHING


def words(value: Any) -> str | None:
    """Return a string that holds more than blanks, else None."""
    return value if isinstance(value, str) and value.strip() else None


def tier(value: Any) -> str | None:
    """Return the name of a service tier in lower case, cut to 50 characters, else None."""
    name = words(value)
    return name if name is None or name in _TIERS else clean(name, 50).lower()


def count(value: Any) -> int | None:
    """Return a token counter that fits 63 bits, else None."""
    return value if type(value) is int and 0 <= value < _MAX_COUNT else None


#: No call costs this much; a greater number is a mistake of whoever sent it.
_MAX_DOLLARS = 1_000_000_000


def dollars(value: Any) -> Decimal | None:
    """Return a JSON number of dollars digit by digit as it was written, without binary noise; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_DOLLARS:
        return None
    return Decimal(repr(value))


def clean(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return text fit for a record: cut to `limit` characters, control characters out, key-like words masked."""
    if len(text) > limit:
        text = text[:limit] + " ..."
    return _KEY_LIKE.sub("[key]", _UNPRINTABLE.sub(" ", text)).strip()


def quote(body: bytes) -> str:
    """Return the first 500 bytes of a body as readable text, or "an empty body"."""
    if not body.strip():
        return "an empty body"
    return clean(body[:QUOTE_LIMIT].decode("utf-8", "replace"))


def plain(value: Any) -> str:
    """Return any JSON value as text: a string as it is, the rest as JSON."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return "(nested too deeply to show)"
