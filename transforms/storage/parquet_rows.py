"""Parquet files: their footers, and their rows as a stream of small batches.

Values come as Python objects. Nanoseconds are cut to microseconds, because Python's times hold no more. A value
that Python can't hold, or text that is not UTF-8, makes its row a dead letter; a damaged row group gives the rows
before the damage and one dead letter (DAMAGED_FILE) for the rest.
"""

from collections.abc import Iterator
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.records.errors import InputError
from transforms.records.failure import DeadLetter, FailureKind
from transforms.records.row import RawRow
from transforms.storage.gcs import StorageError
from transforms.storage.input_schema import InputColumn, InputFile, InputSchema, unread_line
from transforms.storage.objects import open_read

_BATCH_ROWS = 1_000
_BUFFER_BYTES = 1 << 20


def read_footer(location: str) -> tuple[pa.Schema, tuple[int, ...]]:
    """Give the schema, as rows will come, and the number of rows of each row group.

    Raises:
        pyarrow.ArrowException, OSError: it is no Parquet file, or can't be read.
    """
    with open_read(location) as opened, pq.ParquetFile(opened) as parquet:
        groups = parquet.metadata
        rows = tuple(groups.row_group(number).num_rows for number in range(groups.num_row_groups))
        return _plain_schema(parquet.schema_arrow), rows


def parquet_schema(files: list[InputFile]) -> InputSchema:
    """Give the schema that all files share.

    Raises:
        InputError: two files disagree, a column name is there twice, or a time zone is unknown.
    """
    first, *others = files
    schema, _ = read_footer(first.location)
    for other in others:
        found, _ = read_footer(other.location)
        if not found.equals(schema):
            raise InputError(f"{first.path} and {other.path} disagree: {_difference(schema, found)}; read them apart")
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise InputError(f'{first.path} has two columns named "{name}"; rename one of them')
    _check_zones(schema, first.path)
    return InputSchema(tuple(InputColumn(name, "native") for name in schema.names), schema)


def read_parquet(
    file: InputFile, schema: InputSchema, start: int = 0, stop: int | None = None
) -> Iterator[RawRow | DeadLetter]:
    """Yield the rows of the row groups from `start` up to, not including, `stop` (None: the last).

    Raises:
        OSError: the file can't be opened.
    """
    before = [0, *accumulate(file.group_rows)]
    with open_read(file.location) as opened, pq.ParquetFile(opened, buffer_size=_BUFFER_BYTES) as parquet:
        for group in range(len(file.group_rows))[start:stop]:
            line = before[group] + 1
            try:
                for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group]):
                    yield from _batch_rows(batch.cast(schema.arrow, safe=False), file.path, line)
                    line += batch.num_rows
            except (StorageError, FileNotFoundError):  # the bucket is away, not the file damaged
                raise
            except (OSError, pa.ArrowException) as error:
                last = before[group + 1]
                reason = (
                    f"rows {line} to {last}: row group {group} is damaged ({_one_line(error)}); "
                    f"{last - line + 1} row(s) are lost: get the file again from its source"
                )
                yield unread_line(file.path, line, b"", FailureKind.DAMAGED_FILE, reason)


def _batch_rows(batch: pa.RecordBatch, path: str, line: int) -> Iterator[RawRow | DeadLetter]:
    try:
        rows = batch.to_pylist()
    except Exception:  # noqa: BLE001 - whatever Arrow can't turn into Python is found row by row
        for number in range(batch.num_rows):
            yield _single_row(batch.slice(number, 1), path, line + number)
        return
    for number, values in enumerate(rows, line):
        yield RawRow(values, path, number)


def _single_row(batch: pa.RecordBatch, path: str, line: int) -> RawRow | DeadLetter:
    shown: dict[str, object] = {}
    reason, kind = "", FailureKind.WRONG_TYPE
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            shown[name] = column[0].as_py()
        except UnicodeDecodeError:
            shown[name] = _bytes_of(column)
            kind = FailureKind.UNDECODABLE
            reason = (
                reason or f"row {line}, column {name}: text that is not UTF-8; write the file again from its source"
            )
        except Exception as error:  # noqa: BLE001 - one value must not end the run, whatever it raises
            shown[name] = _text_of(column)
            reason = reason or (
                f"row {line}, column {name}: {shown[name]} is beyond what a {column.type} may hold here "
                f"({_one_line(error)}); correct the value"
            )
    return unread_line(path, line, shown, kind, reason) if reason else RawRow(shown, path, line)


def _bytes_of(column: pa.Array) -> str:
    twin = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    try:
        return str(column.cast(twin)[0].as_py().decode("utf-8", "backslashreplace"))
    except pa.ArrowException:  # the text lies inside a list or a struct
        return f"a {column.type}"


def _text_of(column: pa.Array) -> str:
    try:
        return str(column.cast(pa.string())[0].as_py())
    except Exception:  # noqa: BLE001 - shown for people only
        return f"a {column.type}"


def _check_zones(schema: pa.Schema, path: str) -> None:
    for field in schema:
        for zone in _zones(field.type):
            try:
                pa.scalar(0, pa.timestamp("us", tz=zone)).as_py()
            except Exception as error:
                raise InputError(
                    f'{path}: the column "{field.name}" is in the time zone "{zone}", which is not known here; '
                    "write the file again with a zone such as UTC, or install that zone (the package tzdata)"
                ) from error


def _zones(kind: pa.DataType) -> Iterator[str]:
    """Give the time zones of a type's timestamps, at any depth."""
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        yield kind.tz
    for number in range(kind.num_fields):
        yield from _zones(kind.field(number).type)


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(field.name, _plain_type(field.type)) for field in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Give the type without dictionaries and nanoseconds, at any depth."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain_type(field.type)) for field in kind])
    if getattr(kind, "unit", None) == "ns":
        return _microseconds(kind)
    return kind


def _microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    return pa.time64("us") if pa.types.is_time64(kind) else pa.duration("us")


def _difference(expected: pa.Schema, found: pa.Schema) -> str:
    for field in expected:
        if field.name not in found.names:
            return f'"{field.name}" is only in the first'
        other = found.field(field.name).type
        if not other.equals(field.type):
            return f'"{field.name}" is {field.type} in the first and {other} in the second'
    for name in found.names:
        if name not in expected.names:
            return f'"{name}" is only in the second'
    return "their columns are in another order"


def _one_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
