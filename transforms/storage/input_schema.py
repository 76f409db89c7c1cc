"""What the readers share: the input's files, its columns, and the dead letter of a line that can't be read."""

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from transforms.records.failure import DeadLetter, FailureKind, Stage
from transforms.records.settings import ColumnType
from transforms.rules.identity import line_id
from transforms.rules.shapes import ListShape, StructShape
from transforms.rules.values import DECIMAL_PRECISION, DECIMAL_SCALE

FileFormat = Literal["csv", "jsonl", "parquet", "bigquery"]

#: Raw text beyond this is cut in a dead letter.
MAX_SHOWN_BYTES = 1 << 20

_ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "decimal": pa.decimal128(DECIMAL_PRECISION, DECIMAL_SCALE),
    "json": pa.string(),
}


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read, or a table or a query's result of BigQuery.

    Attributes:
        path: the file as people see it in ids, audit and errors; location: where it is opened.
        format: csv, jsonl, parquet or bigquery; compressed: gzip.
        size: bytes on disk; BigQuery: bytes of the table, or those the query read.
        group_rows: Parquet: the number of rows of each row group; BigQuery: of each range; else empty.
        version: BigQuery: what changes when the table does; else empty.
    """

    path: str
    location: str
    format: FileFormat
    compressed: bool
    size: int
    group_rows: tuple[int, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class InputColumn:
    """One column of the input.

    Attributes:
        shape: how text and JSON values are typed; "native" for Parquet and BigQuery, whose values come typed.
        declared: True where the job names the type (input.types).
    """

    name: str
    shape: ColumnType | ListShape | StructShape | Literal["native"]
    declared: bool = False


@dataclass(frozen=True)
class InputSchema:
    """The columns of the input, in order, and the same as Arrow fields (all nullable, no metadata)."""

    columns: tuple[InputColumn, ...]
    arrow: pa.Schema

    @property
    def names(self) -> list[str]:
        """The columns' names, in order."""
        return [column.name for column in self.columns]


def schema_of(columns: tuple[InputColumn, ...]) -> InputSchema:
    """Give the schema of text columns, whose Arrow types follow from their shapes."""
    return InputSchema(columns, pa.schema([pa.field(column.name, arrow_type(column.shape)) for column in columns]))


def arrow_type(shape: Any) -> pa.DataType:
    """Give the Arrow type that holds a settled shape (rules/shapes.py)."""
    if isinstance(shape, ListShape):
        return pa.list_(arrow_type(shape.item))
    if isinstance(shape, StructShape):
        return pa.struct([pa.field(name, arrow_type(member)) for name, member in shape.members])
    return _ARROW_TYPES[shape]


def unread_line(path: str, line: int, raw: bytes | dict[str, object], kind: FailureKind, reason: str) -> DeadLetter:
    r"""Make the dead letter of a line that gave no row.

    Args:
        path: the file.
        line: where the row begins, from 1.
        raw: the row as an object where it could be read so far, else its bytes (bad ones are shown as \xNN).
        kind: UNDECODABLE, MALFORMED_ROW, DAMAGED_FILE or WRONG_TYPE.
        reason: one sentence that names the line.
    """
    row = raw if isinstance(raw, dict) else _shown(raw)
    return DeadLetter(line_id(path, line), Stage.READ, kind, reason, 0, False, path, line, row)


def _shown(raw: bytes) -> str:
    text = raw[:MAX_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return text.rstrip("\r\n") if len(raw) <= MAX_SHOWN_BYTES else f"{text}... (cut here)"
