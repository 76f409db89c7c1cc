"""Some rows of the input, spread over it, without reading it all; and a sample of fixed size from a stream.

Rows come from the beginning of each file and, unless it is packed, from further places. A place inside a
quoted field of several lines gives rows that are none: good enough to estimate by, and for nothing else.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from pipelines.prepare import PreparedJob
from transforms.records.row import RawRow
from transforms.storage.inputs import InputFile, read_rows
from transforms.storage.objects import open_read

#: Files looked into, places in a large one, and bytes read at each.
_FILES = 8
_PLACES = 4
_BLOCK_BYTES = 48 << 10

Item = TypeVar("Item")


class SpreadSample(Generic[Item]):
    """Keeps up to `most` items of a stream of unknown length, at equal distances. Memory: those items.

    Attributes:
        items: what is kept now, in their order.
    """

    def __init__(self, most: int) -> None:
        self.items: list[Item] = []
        self._most = most
        self._step = 1
        self._seen = 0

    def wants_next(self) -> bool:
        """Count one item; say whether `keep` is to be given it."""
        self._seen += 1
        return (self._seen - 1) % self._step == 0

    def keep(self, item: Item) -> None:
        """Add an item that `wants_next` asked for; where there are too many, every second one goes."""
        self.items.append(item)
        if len(self.items) > self._most:
            del self.items[1::2]
            self._step *= 2


def sample_rows(prepared: PreparedJob, most: int = 500) -> list[RawRow]:
    """Return up to `most` readable rows, spread over the first files of the input.

    Raises:
        OSError: a file can't be read any more.
    """
    files = [file for file in prepared.files if file.size][:_FILES]
    rows: list[RawRow] = []
    for number, file in enumerate(files):
        share = (most - len(rows)) // (len(files) - number)
        rows += _from_file(prepared, file, share)
    return rows


def _from_file(prepared: PreparedJob, file: InputFile, most: int) -> list[RawRow]:
    if not file.compressed and file.format in ("csv", "jsonl") and file.size < _PLACES * _BLOCK_BYTES:
        return _spread(read_rows(file, prepared.input, prepared.input_schema), most)
    pieces = _pieces(prepared, file)
    rows: list[RawRow] = []
    for number, piece in enumerate(pieces):
        share = (most - len(rows)) // (len(pieces) - number)
        rows += islice((row for row in piece if isinstance(row, RawRow)), share)
    return rows


def _spread(rows: Iterable[object], most: int) -> list[RawRow]:
    """Return up to `most` readable rows of a small file, spread over it."""
    sample: SpreadSample[RawRow] = SpreadSample(most)
    for row in rows:
        if isinstance(row, RawRow) and sample.wants_next():
            sample.keep(row)
    return sample.items


def _pieces(prepared: PreparedJob, file: InputFile) -> list[Iterator[object]]:
    settings, schema = prepared.input, prepared.input_schema
    if file.format in ("parquet", "bigquery"):
        groups = len(file.group_rows)
        starts = sorted({groups * place // _PLACES for place in range(_PLACES)}) or [0]
        return [read_rows(file, settings, schema, start, min(start + 1, groups)) for start in starts]
    whole: Iterator[object] = read_rows(file, settings, schema)
    if file.compressed:
        return [whole]
    offsets = [file.size * place // _PLACES for place in range(1, _PLACES)]
    return [whole, *(_from_block(prepared, file, offset) for offset in offsets)]


def _from_block(prepared: PreparedJob, file: InputFile, offset: int) -> Iterator[object]:
    """Read the whole lines of one block of a text file as a small file of its own."""
    with open_read(file.location) as opened:
        opened.seek(offset)
        block = opened.read(_BLOCK_BYTES)
    first, last = block.find(b"\n") + 1, block.rfind(b"\n") + 1
    with tempfile.TemporaryDirectory(prefix="rowbeam-sample-") as folder:
        path = Path(folder) / "block"
        path.write_bytes(block[first:last])
        small = replace(file, location=str(path), size=last - first)
        settings = prepared.input
        if file.format == "csv":
            settings = settings.model_copy(update={"header": False, "columns": list(prepared.input_schema.names)})
        yield from read_rows(small, settings, prepared.input_schema)
