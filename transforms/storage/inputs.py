"""The input as a whole: which files it is, what columns they share, and how each piece is read.

`expand` and `input_schema` run before anything is spent and raise InputError; `read_rows` streams one file and
turns whatever is wrong in it into dead letters.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from transforms.records.errors import InputError
from transforms.records.failure import DeadLetter
from transforms.records.row import RawRow
from transforms.records.settings import InputSettings
from transforms.storage.bigquery_input import bigquery_schema, expand_bigquery, read_bigquery
from transforms.storage.csv_rows import read_csv, read_header
from transforms.storage.gcs import StorageError, matching
from transforms.storage.input_schema import FileFormat, InputColumn, InputFile, InputSchema, schema_of
from transforms.storage.jsonl_rows import infer_columns, read_jsonl
from transforms.storage.objects import is_remote, open_read
from transforms.storage.parquet_rows import parquet_schema, read_footer, read_parquet

__all__ = [
    "InputColumn",
    "InputFile",
    "InputSchema",
    "WorkUnit",
    "expand",
    "input_schema",
    "read_rows",
    "read_unit",
    "work_units",
]

#: A Parquet file is cut into pieces of at least so many rows, at row groups.
UNIT_ROWS = 50_000

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_GZIP_MARK = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """A piece of the input that one worker reads; start and stop are row groups of a Parquet file, or BigQuery's ranges."""

    file: InputFile
    start: int = 0
    stop: int | None = None


def expand(settings: InputSettings, folder: str | None = None) -> list[InputFile]:
    """List the input's files: each pattern's matches sorted, patterns in their order, every file once.

    A table or query of BigQuery is one file; a query is run for it.

    Args:
        settings: the job's `input`; paths are opened as they are.
        folder: files in it are shown (`InputFile.path`) relative to it, so that ids do not depend on the machine.

    Raises:
        InputError: a pattern matches no file, or a file can't be read, is a folder, or is of an unknown kind.
    """
    if settings.bigquery is not None:
        return [expand_bigquery(settings.bigquery)]
    patterns = [settings.path] if isinstance(settings.path, str) else settings.path
    if not patterns:
        raise InputError("input.path is an empty list; name at least one file")
    locations = dict.fromkeys(location for pattern in patterns for location in _matches(pattern))
    return [_input_file(location, _shown_path(location, folder), settings) for location in locations]


def input_schema(files: Sequence[InputFile], settings: InputSettings) -> InputSchema:
    """Find the columns all files share, with their types.

    CSV: the header and input.types (else string). JSONL: inferred from the first lines, and input.types. Parquet:
    from the footers. BigQuery: from the table, or the query's result.

    Raises:
        InputError: files disagree, a header is bad or missing, or input.types does not fit the files.
    """
    if settings.bigquery is not None:
        return bigquery_schema(files[0], settings.bigquery)
    formats = sorted({file.format for file in files})
    if len(formats) > 1:
        raise InputError(f"the input mixes {' and '.join(formats)} files; name files of one format in input.path")
    if formats == ["parquet"]:
        if settings.types:
            raise InputError("input.types is for CSV and JSONL; Parquet files carry their own types: remove it")
        return parquet_schema(list(files))
    try:
        return schema_of(
            infer_columns(list(files), settings) if formats == ["jsonl"] else _csv_columns(files, settings)
        )
    except OSError as error:
        raise InputError(f"the input can't be read: {error}") from error


def read_rows(
    file: InputFile, settings: InputSettings, schema: InputSchema, start: int = 0, stop: int | None = None
) -> Iterator[RawRow | DeadLetter]:
    """Yield the rows of a file, in order, and a dead letter for whatever is no row; memory is flat.

    Args:
        file: what to read.
        settings: the job's `input`.
        schema: what `input_schema` found.
        start: Parquet, BigQuery: the first row group or range; text files are always read whole.
        stop: Parquet, BigQuery: the row group or range before which to end; None for the last.

    Raises:
        OSError: the file can't be opened or read any more.
    """
    if settings.bigquery is not None:
        return read_bigquery(file, settings.bigquery, start, stop)
    if file.format == "csv":
        return read_csv(file, settings, schema)
    if file.format == "jsonl":
        return read_jsonl(file, schema)
    return read_parquet(file, schema, start, stop)


def work_units(files: Sequence[InputFile]) -> list[WorkUnit]:
    """Cut the input into pieces: a text file is one; Parquet and BigQuery give one per UNIT_ROWS rows."""
    return [unit for file in files for unit in _units_of(file)]


def read_unit(unit: WorkUnit, settings: InputSettings, schema: InputSchema) -> Iterator[RawRow | DeadLetter]:
    """Yield the rows of one piece, as `read_rows` does."""
    return read_rows(unit.file, settings, schema, unit.start, unit.stop)


def _units_of(file: InputFile) -> Iterator[WorkUnit]:
    if file.format not in ("parquet", "bigquery"):
        yield WorkUnit(file)
        return
    start = rows = 0
    for group, group_rows in enumerate(file.group_rows):
        rows += group_rows
        if rows >= UNIT_ROWS or group == len(file.group_rows) - 1:
            yield WorkUnit(file, start, group + 1)
            start, rows = group + 1, 0


def _matches(pattern: str) -> list[str]:
    if "://" in pattern:
        return _remote_matches(pattern)
    if Path(pattern).exists() or not glob.has_magic(pattern):
        return [pattern]
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns
    found = [match for match in matches if not Path(match).is_dir()]
    if not found:
        only = "only folders match" if matches else "no file matches"
        raise InputError(f"{pattern}: {only}; correct input.path (relative paths start at the job file's folder)")
    return found


def _remote_matches(pattern: str) -> list[str]:
    if not is_remote(pattern):
        scheme = pattern.partition("://")[0]
        raise InputError(f"{pattern}: {scheme}:// can't be read; name local files, or gs:// objects")
    if not glob.has_magic(pattern):
        return [pattern]
    try:
        found = matching(pattern)
    except OSError as error:
        raise InputError(f"input.path: {error}") from error
    if not found:
        raise InputError(f"{pattern}: no object matches; correct input.path")
    return found


def _shown_path(location: str, folder: str | None) -> str:
    if folder is None or is_remote(location):
        return location
    relative = os.path.relpath(location, folder)
    return location if relative.startswith("..") else Path(relative).as_posix()


def _input_file(location: str, path: str, settings: InputSettings) -> InputFile:
    if not is_remote(location) and Path(location).is_dir():
        raise InputError(f"{path} is a folder; name its files, such as {path.rstrip('/')}/*.csv")
    kind, compressed = _kind_of(path, settings)
    try:
        with open_read(location) as opened:
            mark = opened.read(2)
            size = opened.seek(0, os.SEEK_END)
        rows = read_footer(location)[1] if kind == "parquet" else ()
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; correct input.path (relative paths start at the job file's folder)"
        ) from None
    except StorageError as error:
        raise InputError(f"input.path: {error}") from error
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; change its mode or run as another user") from None
    except (OSError, pa.ArrowException) as error:
        what = "is not a whole Parquet file" if kind == "parquet" else "can't be read"
        raise InputError(f"{path} {what}: {str(error).splitlines()[0]}") from error
    _check_gzip(path, mark, compressed=compressed)
    return InputFile(path, location, kind, compressed, size, rows)


def _kind_of(path: str, settings: InputSettings) -> tuple[FileFormat, bool]:
    name = path.lower()
    compressed = name.endswith(".gz")
    suffix = Path(name.removesuffix(".gz")).suffix
    kind = settings.format or _SUFFIXES.get(suffix)
    if kind is None:
        known = ", ".join(_SUFFIXES)
        raise InputError(f"{path}: its suffix tells no format ({known}, also with .gz); set input.format")
    if kind == "parquet" and compressed:
        raise InputError(f"{path}: Parquet inside gzip can't be read; unpack it (Parquet is compressed already)")
    return kind, compressed


def _check_gzip(path: str, mark: bytes, *, compressed: bool) -> None:
    if compressed and mark != _GZIP_MARK:
        raise InputError(f"{path} is named .gz but holds no gzip data; rename it, or get it again from its source")
    if not compressed and mark == _GZIP_MARK:
        raise InputError(f"{path} holds gzip data; name it {path}.gz")


def _csv_columns(files: Sequence[InputFile], settings: InputSettings) -> tuple[InputColumn, ...]:
    names = _agreed_header(files, settings) if settings.header else settings.columns
    if not names:
        raise InputError("header: false needs input.columns: the names of the columns, in order")
    unknown = [name for name in settings.types if name not in names]
    if unknown:
        raise InputError(f'input.types names "{unknown[0]}", which is no column; there are: {", ".join(names)}')
    return tuple(InputColumn(name, settings.types.get(name, "string"), name in settings.types) for name in names)


def _agreed_header(files: Sequence[InputFile], settings: InputSettings) -> list[str]:
    first: tuple[InputFile, list[str]] | None = None
    for file in files:
        header = read_header(file, settings)
        if header is None:  # an empty part of a larger export
            continue
        if first is None:
            first = (file, header)
        elif header != first[1]:
            raise InputError(
                f"{first[0].path} and {file.path} have different headers: {_header_difference(first[1], header)}; "
                "make them alike, or read the files in jobs of their own"
            )
    if first is None:
        raise InputError(f"{files[0].path} is empty: it has no header line; check the file")
    return first[1]


def _header_difference(first: list[str], second: list[str]) -> str:
    missing = [name for name in first if name not in second]
    added = [name for name in second if name not in first]
    if missing or added:
        parts = [f'"{name}" is only in the first' for name in missing[:1]]
        parts += [f'"{name}" is only in the second' for name in added[:1]]
        return ", ".join(parts)
    return "the same columns in another order"
