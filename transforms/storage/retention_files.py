"""Rewriting files at rest without their payloads: the new file is written beside the old one, under a hidden name.

In flat memory; a file that holds no payload is not written at all. Nothing takes the old one's place before `put`.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.records.errors import InternalError
from transforms.rules.retention import drop_message, drop_payload
from transforms.storage.draft_file import DraftFile
from transforms.storage.ledger_lines import BROKEN_LINE, parse_line
from transforms.storage.objects import parent, publish, sha256_file
from transforms.storage.tables import ParquetWriter, json_default

_HIDDEN = ".forgetting-"
_LEFT_OVERS = (f"*{_HIDDEN}*", ".draft.*.tmp")
_BATCH_ROWS = 4096
_READ_BUFFER_BYTES = 1 << 18
_RULES: dict[str, Callable[[str | None], str | None]] = {
    "request_json": drop_payload,
    "response_json": drop_payload,
    "error_json": drop_message,
}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file is known by; rows: of a table, or lines."""

    sha256: str
    bytes: int
    rows: int

    def json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file whose successor waits beside it. dropped: how many texts it lost; now: None when it goes as a whole."""

    path: str
    was: FileFacts
    now: FileFacts | None
    dropped: int


def hidden_path(path: str) -> str:
    """Return where the successor of a file waits."""
    return str(Path(path).with_name(_HIDDEN + Path(path).name))


def clear_hidden(folder: str) -> None:
    """Remove what an earlier try that was killed left in a folder."""
    for pattern in _LEFT_OVERS:
        for path in Path(folder).glob(pattern):
            path.unlink(missing_ok=True)


def put(rewritten: Rewritten) -> None:
    """Let the successor take the file's place, durably; a file without one is removed."""
    if rewritten.now is None:
        Path(rewritten.path).unlink(missing_ok=True)
    else:
        publish(hidden_path(rewritten.path), rewritten.path)


def rewrite_calls(path: str, *, write: bool) -> Rewritten | None:
    """Write a Parquet file of table calls anew without payloads; None when there are none.

    Args:
        path: the file.
        write: False: only count.
    """
    source = pq.ParquetFile(path)
    rows = int(source.metadata.num_rows)
    writer = ParquetWriter(hidden_path(path), source.schema_arrow) if write else None
    dropped = 0
    try:
        with closing(source):
            for batch in source.iter_batches(_BATCH_ROWS):
                count, changed = _drop(batch)
                dropped += count
                if writer is not None:
                    writer.append_batch(changed)
        if writer is not None and dropped:
            writer.close()
    finally:
        if writer is not None:
            writer.discard()
    return _rewritten(path, rows, rows, dropped, write=write)


def rewrite_lines(path: str, drop: Callable[[dict[str, Any]], int], *, write: bool) -> Rewritten | None:
    """Write a JSON-lines file anew with `drop` applied to each object; None when it changes nothing.

    A last line that a kill tore is no record, and may hold a payload: it is left out.

    Args:
        path: the file.
        drop: changes an object in place and returns how many texts it dropped.
        write: False: only count.

    Raises:
        InternalError: a line is no JSON object.
    """
    draft = DraftFile(parent(path)) if write else None
    dropped = before = after = 0
    try:
        for number, line in _lines(path):
            before += 1
            if not line.endswith(b"\n"):
                dropped += 1
                continue
            count, changed = _drop_from_line(path, number, line, drop)
            dropped += count
            after += 1
            if draft is not None:
                draft.write(changed)
        if draft is not None and dropped:
            draft.publish(hidden_path(path))
    finally:
        if draft is not None:
            draft.discard()
    return _rewritten(path, before, after, dropped, write=write)


def removed(path: str) -> Rewritten:
    """Return what stands for a file that goes as a whole, line by line a payload."""
    rows = sum(1 for _ in _lines(path))
    return Rewritten(path, _facts(path, rows), None, rows)


def _rewritten(path: str, rows_before: int, rows_after: int, dropped: int, *, write: bool) -> Rewritten | None:
    if not dropped:
        return None
    was = _facts(path, rows_before)
    return Rewritten(path, was, _facts(hidden_path(path), rows_after) if write else was, dropped)


def _facts(path: str, rows: int) -> FileFacts:
    digest, size = sha256_file(path)
    return FileFacts(digest, size, rows)


def _drop(batch: pa.RecordBatch) -> tuple[int, pa.RecordBatch]:
    dropped = 0
    for name, rule in _RULES.items():
        place = batch.schema.get_field_index(name)
        before = batch.column(place).to_pylist()
        after = [rule(value) for value in before]
        count = sum(old != new for old, new in zip(before, after, strict=True))
        if count:
            dropped += count
            batch = batch.set_column(place, batch.schema.field(place), pa.array(after, pa.string()))
    return dropped, batch


def _drop_from_line(path: str, number: int, line: bytes, drop: Callable[[dict[str, Any]], int]) -> tuple[int, bytes]:
    try:
        found = parse_line(line)
        count = drop(found)
    except BROKEN_LINE as error:
        raise InternalError(f"{path}, line {number}, is damaged ({error}); restore the file from a backup") from error
    if not count:
        return 0, line
    try:
        return count, orjson.dumps(found, default=json_default, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        import json

        return count, json.dumps(found, separators=(",", ":")).encode("ascii") + b"\n"


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    with Path(path).open("rb", buffering=_READ_BUFFER_BYTES) as lines:
        yield from enumerate(lines, 1)
