"""Who a row is: its row_id, from its key columns or from its content.

Every id is unique in a run and the same in every run. A key's text is its row_id as it is, unless it looks like an
id that is derived here; then a backslash ends it:

    line:<path>:<line>     a row without a usable key, or a line that can't be read
    <key>~<n>              the n-th further row with the same key and the same content
    <key>#<path>:<line>    a row whose key another row has with different content
    h<24 hex>-<n>          a row of a job without a key: its content's hash, and an ordinal among identical rows
"""

import datetime as dt
import hashlib
import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson

from transforms.records.errors import RowError
from transforms.records.failure import DeadLetter, FailureKind, Stage
from transforms.records.row import RawRow, SourceRow

_SHOWN_PLACES = 3
_ID_HEX_CHARS = 24
_DERIVED = re.compile(r"~[0-9]+\Z|#.*:[0-9]+\Z", re.DOTALL)
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME


def row_key(values: dict[str, object], key_columns: Sequence[str]) -> str:
    r"""Give the row_id that the key columns make: the value's text; several are joined by "|" ("\" and "|" escaped).

    Raises:
        RowError: MISSING_KEY, a key column is absent, null, empty or not a number.
    """
    if len(key_columns) == 1:
        key = _key_text(values.get(key_columns[0]), key_columns[0])
    else:
        texts = (_key_text(values.get(column), column) for column in key_columns)
        key = "|".join(text.replace("\\", "\\\\").replace("|", "\\|") for text in texts)
    return key + "\\" if _looks_derived(key) else key


def content_sha256(values: dict[str, object]) -> str:
    """Give the hex digest of a row's content: names, types and values, whatever the order of the columns.

    A null column counts as an absent one, since tables can't tell them apart: a row read back from an enriched file
    has the digest of the line it came from, and a column that other rows have changes none.
    """
    if None in values.values():
        values = {name: value for name, value in values.items() if value is not None}
    try:
        canonical = orjson.dumps(values, default=_tagged, option=_CANONICAL)
    except TypeError:  # an integer beyond 64 bits, a lone surrogate: what orjson has no form for
        return _digest(_slow_canonical(values))
    if b"null" in canonical and _has_nonfinite(values):  # orjson writes null for NaN
        canonical = _slow_canonical(values)
    return _digest(canonical)


def content_id(sha256: str, ordinal: int) -> str:
    """Give the row_id of a row without a key; ordinal counts identical rows from 0."""
    return f"h{sha256[:_ID_HEX_CHARS]}-{ordinal}"


def line_id(path: str, line: int) -> str:
    """Give the row_id of what has no other: a place in a file."""
    return f"line:{_escaped_path(path)}:{line}"


def identify_group(key: str, rows: Sequence[RawRow], *, has_key: bool) -> list[SourceRow | DeadLetter]:
    """Name all rows that share a key or, in a job without a key, a content hash.

    Same key and same content: the first by (path, line) takes the key, the others `<key>~1`, `<key>~2` and so on.
    Same key and different content: all are dead letters (duplicate_key). As many come out as went in, in the order
    of (path, line), whatever the order of `rows`.

    Args:
        key: what `row_key` gave, or `content_sha256` where the job has no key.
        rows: every row with that key.
        has_key: whether the job names key columns.
    """
    ordered = sorted(rows, key=lambda row: (row.path, row.line)) if len(rows) > 1 else rows
    if not has_key:
        return [_source_row(content_id(key, ordinal), row, key) for ordinal, row in enumerate(ordered)]
    digests = [content_sha256(row.values) for row in ordered]
    if len(set(digests)) > 1:
        return _clash(key, ordered)
    digest = digests[0]
    return [_source_row(f"{key}~{ordinal}" if ordinal else key, row, digest) for ordinal, row in enumerate(ordered)]


def _source_row(row_id: str, row: RawRow, digest: str) -> SourceRow:
    return SourceRow(row_id, row.values, row.path, row.line, digest)


def _clash(key: str, ordered: Sequence[RawRow]) -> list[SourceRow | DeadLetter]:
    first_places = [f"{row.path} line {row.line}" for row in ordered[: _SHOWN_PLACES + 1]]
    letters: list[SourceRow | DeadLetter] = []
    for row in ordered:
        place = f"{row.path} line {row.line}"
        others = [other for other in first_places if other != place][:_SHOWN_PLACES]
        more = len(ordered) - 1 - len(others)
        reason = (
            f'key "{key}" is on {len(ordered)} rows that differ: also {", ".join(others)}'
            f"{f' and {more} more' if more else ''}; make the key unique, or name more key columns in input.key"
        )
        row_id = f"{key}#{_escaped_path(row.path)}:{row.line}"
        letters.append(
            DeadLetter(
                row_id, Stage.IDENTIFY, FailureKind.DUPLICATE_KEY, reason, 0, False, row.path, row.line, row.values
            )
        )
    return letters


def _escaped_path(path: str) -> str:
    """Keep "#" out of paths, so that the last "#" of a derived id is the one that was put there."""
    return path.replace("%", "%25").replace("#", "%23") if "#" in path or "%" in path else path


def _looks_derived(key: str) -> bool:
    last = key[-1]
    if last == "\\" or key.startswith("line:"):
        return True
    return last in "0123456789" and ("~" in key or "#" in key) and _DERIVED.search(key) is not None


def _key_text(value: Any, column: str) -> str:
    if isinstance(value, str) and value:
        return value
    if value is None or value == "":
        raise RowError(
            FailureKind.MISSING_KEY,
            f"key column {column} is {'missing or null' if value is None else 'empty'}; fill it in, or choose another input.key",
        )
    return _other_key_text(value, column)


def _other_key_text(value: Any, column: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _decimal_text(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and math.isnan(value):
        raise RowError(FailureKind.MISSING_KEY, f"key column {column} is NaN; fill it in, or choose another input.key")
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=_tagged, option=_CANONICAL).decode()
    return str(value)


def _decimal_text(value: Decimal) -> str:
    """Write equal decimals alike: 1.50 and 1.5, never 1E+2."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _tagged(value: Any) -> Any:
    """Give types that JSON has not a form that no plain text has."""
    if isinstance(value, dt.datetime):
        moment = value.astimezone(dt.UTC) if value.tzinfo else value
        return {"$timestamp": moment.isoformat()}
    if isinstance(value, Decimal):
        return {"$decimal": _decimal_text(value)}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, dt.timedelta):
        return {"$duration": str(value)}
    if isinstance(value, dt.date | dt.time):
        return {f"${type(value).__name__}": value.isoformat()}
    raise TypeError(f"no canonical form for a {type(value).__name__}")


def _slow_canonical(values: dict[str, object]) -> bytes:
    return json.dumps(values, default=_tagged, sort_keys=True, separators=(",", ":")).encode("ascii")


def _has_nonfinite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(_has_nonfinite(member) for member in value.values())
    if isinstance(value, list):
        return any(_has_nonfinite(member) for member in value)
    return False


def _digest(canonical: bytes) -> str:
    return hashlib.sha256(canonical).hexdigest()
