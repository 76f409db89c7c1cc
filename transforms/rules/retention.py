"""What stays of a text that is dropped: its hash and size, or of an error its kind and code.

Pure. Each rule may be applied again: what is dropped already stays as it is.
"""

import hashlib
import json
import re
from typing import Any

import orjson

_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([mhdw])")
_UNIT_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DROPPED = re.compile(r'\{"sha256":"[0-9a-f]{64}","bytes":[0-9]+\}')
#: What of an error tells nothing of a row.
_ERROR_FACTS = ("kind", "code", "retry_after_s")


def parse_age(text: str) -> float | None:
    """Return the seconds of an age such as 90m, 12h, 30d, 8w; None for anything else (a unit must be given)."""
    match = _AGE.fullmatch(text.strip())
    return float(match[1]) * _UNIT_SECONDS[match[2]] if match else None


def drop_payload(payload: str | None) -> str | None:
    """Return {"sha256", "bytes"} of a payload's text as JSON, in the form that audit.payloads: hash gives."""
    if payload is None or _DROPPED.fullmatch(payload):
        return payload
    return orjson.dumps(hashed(payload.encode("utf-8", "surrogatepass"))).decode()


def drop_message(error: str | None) -> str | None:
    """Return an error without its message: kind, code, and how long to wait."""
    if error is None:
        return None
    try:
        found = orjson.loads(error)
    except orjson.JSONDecodeError:
        return drop_payload(error)
    if not isinstance(found, dict):
        return drop_payload(error)
    return orjson.dumps({name: found[name] for name in _ERROR_FACTS if name in found}).decode()


def drop_from_call(line: dict[str, Any], *, answers: bool) -> int:
    """Drop the payloads, and with answers the answer's text, of a ledger line of type call; return how many there were.

    A line of any other type holds none.
    """
    if line.get("type") != "call":
        return 0
    dropped = {
        "request_json": drop_payload(line["request_json"]),
        "response_json": drop_payload(line["response_json"]),
        "error_json": drop_message(line["error_json"]),
        "text": None if answers else line["text"],
    }
    count = sum(line[name] != value for name, value in dropped.items())
    line.update(dropped)
    return count


def drop_row(letter: dict[str, Any]) -> int:
    """Drop the row of a dead letter, and its reason, which may quote the row; return how many texts there were."""
    row, kind = letter["row"], letter["kind"]
    is_dropped = isinstance(row, dict) and row.keys() == {"sha256", "bytes"}
    count = (not is_dropped) + (letter["reason"] != kind)
    if not is_dropped:
        letter["row"] = hashed(_text(row))
    letter["reason"] = kind
    return count


def hashed(data: bytes) -> dict[str, Any]:
    """Return the sha256 and the size of some bytes."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _text(row: Any) -> bytes:
    try:
        return orjson.dumps(row)
    except TypeError:
        return json.dumps(row, separators=(",", ":")).encode("ascii")  # a lone surrogate, or an integer beyond 64 bits
