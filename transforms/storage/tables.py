"""Parquet files in flat memory, whole or absent.

Rows enter as dicts with exactly the schema's columns. They become Arrow columns a few hundred at a time and row
groups of bounded size; the file takes its name when it is complete and on disk.
"""

import base64
from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.records.errors import InternalError
from transforms.storage.arrow_types import AUDIT_SCHEMAS, enriched_schema
from transforms.storage.objects import ensure_folder, parent, publish, sync_file, temporary_path

__all__ = ["AUDIT_SCHEMAS", "ROW_GROUP_BYTES", "ParquetWriter", "enriched_schema", "json_default", "record_batch"]

#: Uncompressed size at which a row group is written: what a writer holds in memory, and what a reader must decode.
ROW_GROUP_BYTES = 32 << 20

# Level 1 is twice as fast as zstd's default on JSON payloads, for a few per cent more bytes.
_ZSTD_LEVEL = 1

# Columns that one row is looked up by: a Bloom filter lets a reader pass over all row groups but one or two unread.
_SOUGHT = ("row_id", "request_id", "root_request_id")
_SOUGHT_SUFFIX = "_request_id"
_NOT_SOUGHT = "provider_request_id"
_FALSE_HITS = 0.01


class ParquetWriter:
    """Writes one Parquet file (zstd). Use it in a `with`: an exception leaves no file.

    Two writers of one path don't disturb each other: each writes a file of its own, and the last to close wins.
    """

    def __init__(
        self, path: str, schema: pa.Schema, batch_rows: int = 512, row_group_bytes: int = ROW_GROUP_BYTES
    ) -> None:
        self.row_count = 0
        self._path = path
        self._schema = schema
        self._batch_rows = batch_rows
        self._row_group_bytes = row_group_bytes
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        ensure_folder(parent(path))
        self._temporary = temporary_path(path)
        self._writer: pq.ParquetWriter | None = None

    def append(self, row: dict[str, Any]) -> None:
        """Add one row, a value for each column of the schema (None for null).

        Raises:
            InternalError: columns are absent or unknown, or a value does not fit its column's type.
        """
        self._rows.append(row)
        if len(self._rows) >= self._batch_rows:
            self._convert()

    def extend(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows; see `append`."""
        for row in rows:
            self.append(row)

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows that are columns of the schema already."""
        self._convert()
        self._take(batch)

    def close(self) -> None:
        """Write what is left and give the file its name; when this returns the file survives a power cut."""
        self._convert()
        self._write_group()
        self._open(0).close()
        sync_file(self._temporary)
        publish(self._temporary, self._path)

    def discard(self) -> None:
        """Drop the file."""
        if self._writer is not None:
            self._writer.close()
        Path(self._temporary).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _convert(self) -> None:
        if not self._rows:
            return
        batch = record_batch(self._rows, self._schema)
        self._rows = []
        self._take(batch)

    def _take(self, batch: pa.RecordBatch) -> None:
        self.row_count += batch.num_rows
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= self._row_group_bytes:
            self._write_group()

    def _write_group(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches, self._schema)
            self._open(len(table)).write_table(table, row_group_size=max(1, len(table)))
        self._batches = []
        self._bytes = 0

    def _open(self, rows: int) -> pq.ParquetWriter:
        """Return the writer, opened with the first row group: the Bloom filters are as big as its rows need."""
        if self._writer is None:
            filters = {name: {"ndv": max(1, rows), "fpp": _FALSE_HITS} for name in _sought(self._schema)}
            self._writer = pq.ParquetWriter(
                self._temporary,
                self._schema,
                compression="zstd",
                compression_level=_ZSTD_LEVEL,
                bloom_filter_options=filters or None,
            )
        return self._writer


def _sought(schema: pa.Schema) -> list[str]:
    names = [field.name for field in schema if pa.types.is_string(field.type)]
    return [name for name in names if name in _SOUGHT or (name.endswith(_SOUGHT_SUFFIX) and name != _NOT_SOUGHT)]


def json_default(value: Any) -> str:
    """Say in JSON what orjson can't: money as plain digits, bytes as base64, all else as its text."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)


def record_batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Turn rows into columns.

    Text that is no UTF-8 (lone surrogates) gets replacement characters, and money is rounded to its column's digits.

    Raises:
        InternalError: columns are absent or unknown, or a value does not fit its column's type.
    """
    width = len(schema)
    for row in rows:
        if len(row) != width:
            raise InternalError(f"a row has the columns {sorted(row)}, the table {sorted(schema.names)}")
    return pa.RecordBatch.from_arrays([_column(rows, field) for field in schema], schema=schema)


def _column(rows: list[dict[str, Any]], field: pa.Field) -> pa.Array:
    name = field.name
    try:
        values = [row[name] for row in rows]
    except KeyError:
        raise InternalError(f"a row has no column {name!r}") from None
    try:
        column = pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError):
        column = _mended(values, field)
    if column.null_count and not field.nullable:
        raise InternalError(f"column {name!r} must have a value in every row, and one has none")
    return column


def _mended(values: list[Any], field: pa.Field) -> pa.Array:
    mend = _mender(field.type)
    try:
        return pa.array([mend(value) for value in values], field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ArithmeticError) as error:
        raise InternalError(f"column {field.name!r} can't hold a value as {field.type}: {error}") from error


def _mender(kind: pa.DataType) -> Callable[[Any], Any]:
    """Return what brings a value into `kind` where that is possible, at any depth."""
    if pa.types.is_struct(kind):
        members = {member.name: _mender(member.type) for member in kind}
        return lambda value: (
            {name: members[name](item) for name, item in value.items() if name in members}
            if isinstance(value, dict)
            else value
        )
    if pa.types.is_list(kind):
        item_mender = _mender(kind.value_type)
        return lambda value: value if value is None else [item_mender(item) for item in value]
    if pa.types.is_decimal(kind):
        step = Decimal(1).scaleb(-kind.scale)
        context = Context(prec=kind.precision, rounding=ROUND_HALF_EVEN)
        return lambda value: value.quantize(step, context=context) if isinstance(value, Decimal) else value
    return _utf8


def _utf8(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
