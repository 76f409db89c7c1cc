"""One spelling for every value, so that equal values have equal hashes.

Enters any value that an input column, a lookup file or a request can hold; leaves its RFC 8785 (JSON
Canonicalization Scheme) bytes. Nothing here depends on the process, the platform or the order of keys.
"""

from base64 import b64encode
from datetime import date, time
from decimal import Decimal
from hashlib import sha256
from math import isfinite

import orjson
import rfc8785

_SAFE_INT = 2**53


def canonical_json(value: object) -> bytes:
    """Return the RFC 8785 bytes of `to_json(value)`.

    Args:
        value: any value; what JSON can't hold is turned into text first (see `to_json`).

    Returns:
        UTF-8 bytes; equal for equal values, whatever the order of their keys.

    Raises:
        ValueError: a text holds an unpaired surrogate, which no UTF-8 can carry, or the value contains itself.
    """
    try:
        if _is_simple(value):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return rfc8785.dumps(to_json(value))
    except (orjson.JSONEncodeError, rfc8785.CanonicalizationError, UnicodeEncodeError) as exc:
        raise ValueError("a text holds an unpaired surrogate (such as \\ud800), which can't be sent") from exc
    except RecursionError as exc:
        raise ValueError("the value is nested too deeply, or contains itself") from exc


def canonical_sha256(value: object) -> str:
    """Return the hex sha256 of `canonical_json(value)`; raises ValueError as it does."""
    return sha256(canonical_json(value)).hexdigest()


def to_json(value: object) -> object:
    """Turn a value into what RFC 8785 can write.

    Dates and times become ISO 8601 text; Decimal, integers beyond 53 bits and non-finite floats their digits as
    text; bytes base64 text; keys text. Everything else unknown becomes its `str`.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -_SAFE_INT < value < _SAFE_INT else str(value)
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): to_json(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(member) for member in value]
    return _as_text(value)


def _as_text(value: object) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    return str(value)


def _is_simple(value: object) -> bool:
    """Tell whether orjson writes `value` as RFC 8785 does.

    It does for texts, booleans, null and safe integers, and sorts ASCII keys alike; floats and other keys differ.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is dict:
        for key, member in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not key.isascii() or not (type(member) is str or _is_simple(member)):
                return False
        return True
    if kind is list or kind is tuple:
        return all(map(_is_simple, value))  # type: ignore[call-overload]
    return kind is int and -_SAFE_INT < value < _SAFE_INT  # type: ignore[operator]
