r"""JSON Lines files: the columns their first lines show, and their rows as a stream.

One object per line, lines end at "\n" only. Every physical line ends in exactly one RawRow or DeadLetter, or is
blank (skipped). A key that a line lacks is absent from its row's values, so that a template that uses it fails rather
than asks about nothing; a key that is no column makes the row a dead letter, since dropping it in silence would lose
data.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from transforms.records.errors import InputError
from transforms.records.failure import DeadLetter, FailureKind
from transforms.records.row import RawRow
from transforms.records.settings import InputSettings
from transforms.rules.shapes import Shape, infer_shape, merge_shapes, settle_shape
from transforms.rules.values import json_converter, wrong_type
from transforms.storage.input_lines import MAX_LINE_BYTES, LineSource, overlong_letter
from transforms.storage.input_schema import InputColumn, InputFile, InputSchema, unread_line

#: How much is read, over all files, to infer the columns.
SAMPLE_LINES = 10_000
SAMPLE_BYTES = 64 << 20

#: Objects and lists inside each other, at most.
MAX_DEPTH = 100

_ABSENT = object()

# orjson turns integers beyond 64 bits into floats of at least this size.
_LONG_FLOAT = 2.0**63


def infer_columns(files: list[InputFile], settings: InputSettings) -> tuple[InputColumn, ...]:
    """Infer the columns from the first lines of each file; types named in input.types win and may add columns.

    Raises:
        InputError: no line shows a column, and the job declares none.
        OSError: a file can't be opened or read.
    """
    shapes: dict[str, Shape] = {}
    for row in _sample(files):
        for name, value in row.items():
            shapes[name] = merge_shapes(shapes.get(name), infer_shape(value))
    columns = [
        InputColumn(name, settings.types.get(name) or settle_shape(shape), name in settings.types)
        for name, shape in shapes.items()
    ]
    columns += [InputColumn(name, kind, True) for name, kind in settings.types.items() if name not in shapes]
    if not columns:
        raise InputError(
            f"{files[0].path}: no line in it holds a JSON object with a key, so its columns are unknown; "
            "check the file, or declare its columns in input.types"
        )
    return tuple(columns)


def read_jsonl(file: InputFile, schema: InputSchema) -> Iterator[RawRow | DeadLetter]:
    """Yield the rows of one file in order; bad lines as dead letters (UNDECODABLE, MALFORMED_ROW, WRONG_TYPE).

    Raises:
        OSError: the file can't be opened or read.
    """
    path = file.path
    row_of = _RowMaker(path, schema)
    with LineSource(file) as lines:
        while (raw := lines.take()) is not None:
            if (row := row_of(raw, lines.number)) is not None:
                yield row
        if (letter := lines.damage_letter()) is not None:
            yield letter


class _RowMaker:
    """Makes the row of one line, or its dead letter; None for a blank line."""

    def __init__(self, path: str, schema: InputSchema) -> None:
        self._path = path
        self._columns: list[tuple[str, Callable[[Any], Any]]] = [
            (column.name, json_converter(column.shape, declared=column.declared))  # type: ignore[arg-type]
            for column in schema.columns
        ]
        self._names = frozenset(schema.names)

    def __call__(self, raw: bytes, line: int) -> RawRow | DeadLetter | None:
        if len(raw) > MAX_LINE_BYTES:
            return overlong_letter(self._path, line, raw)
        try:
            parsed = parse_line(raw)
        except ValueError as error:
            return self._unreadable(raw, line, error) if raw.strip() else None
        if not isinstance(parsed, dict):
            kind = type(parsed).__name__
            reason = f"line {line} holds a JSON {_JSON_NAMES.get(kind, kind)}, not an object; write one object per line"
            return unread_line(self._path, line, raw, FailureKind.MALFORMED_ROW, reason)
        if not parsed.keys() <= self._names:
            return self._unknown_key(parsed, raw, line)
        return self._typed(parsed, raw, line)

    def _typed(self, parsed: dict[str, Any], raw: bytes, line: int) -> RawRow | DeadLetter:
        values: dict[str, Any] = {}
        for name, convert in self._columns:
            value = parsed.get(name, _ABSENT)
            if value is _ABSENT:
                continue
            if value is not None:
                try:
                    value = convert(value)
                except ValueError as error:
                    refused = wrong_type(line, name, value, str(error))
                    return unread_line(self._path, line, _plain_row(parsed, raw), refused.kind, refused.reason)
            values[name] = value
        return RawRow(values, self._path, line)

    def _unreadable(self, raw: bytes, line: int, error: ValueError) -> DeadLetter:
        try:
            raw.decode()
        except UnicodeDecodeError as bad:
            reason = f"line {line}, byte {bad.start + 1}: bytes that are not UTF-8; save the file as UTF-8"
            return unread_line(self._path, line, raw, FailureKind.UNDECODABLE, reason)
        cure = "; NaN and Infinity are not JSON, write null" if b"NaN" in raw or b"Infinity" in raw else ""
        reason = (
            f"line {line} is not a JSON object: {_json_problem(error)}{cure or '; write one whole object per line'}"
        )
        return unread_line(self._path, line, raw, FailureKind.MALFORMED_ROW, reason)

    def _unknown_key(self, parsed: dict[str, Any], raw: bytes, line: int) -> DeadLetter:
        name = next(name for name in parsed if name not in self._names)
        reason = (
            f'line {line} has the key "{name}", which no line had among the first {SAMPLE_LINES:,}; '
            f"declare it in the job (input.types: {{{name}: string}}), or remove it"
        )
        return unread_line(self._path, line, _plain_row(parsed, raw), FailureKind.MALFORMED_ROW, reason)


_JSON_NAMES = {
    "list": "array",
    "str": "string",
    "int": "number",
    "float": "number",
    "bool": "boolean",
    "NoneType": "null",
}


def parse_line(raw: bytes) -> Any:
    """Parse one line of JSON; integers of any length stay exact.

    Raises:
        ValueError: it is not UTF-8, not JSON, or nested more than MAX_DEPTH deep.
    """
    parsed = orjson.loads(raw)
    return json.loads(raw) if _holds_long_number(parsed, 0) else parsed


def _holds_long_number(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is float:
        return bool(value >= _LONG_FLOAT or value <= -_LONG_FLOAT)
    if kind is dict or kind is list:
        if depth >= MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        members = value.values() if kind is dict else value
        return any(_holds_long_number(member, depth + 1) for member in members)
    return False


def _plain_row(parsed: dict[str, Any], raw: bytes) -> dict[str, object] | bytes:
    """Give the row for a dead letter; its text where an integer is too long for the dead-letter file's JSON."""
    try:
        orjson.dumps(parsed)
    except TypeError:
        return raw
    return parsed


def _json_problem(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return str(error)


def _sample(files: list[InputFile]) -> Iterator[dict[str, Any]]:
    """Yield the objects of the first lines: as many of each file, up to the bounds over all."""
    lines_each = max(SAMPLE_LINES // len(files), 1)
    lines_left, bytes_left = SAMPLE_LINES, SAMPLE_BYTES
    for file in files:
        with LineSource(file) as lines:
            for _ in range(min(lines_each, lines_left)):
                raw = lines.take()
                if raw is None or bytes_left <= 0:
                    break
                lines_left -= 1
                bytes_left -= len(raw)
                try:
                    row = parse_line(raw)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    yield row
