"""This run's own requests of a batch, packed, with the rows that wait for them.

Written when a batch is staged or adopted, read when its results come, gone when the run ends. The packed requests lie
one after another; behind them an index, of which 50,000 requests need 1.4 MB: the two halves of the requests' digests
in order, each one's number, and where each number's bytes begin. A file is whole or absent.
"""

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Self

from transforms.records.errors import InternalError
from transforms.records.request import is_packed_of
from transforms.storage.draft_file import DraftFile
from transforms.storage.objects import is_remote, join, local_copy, parent
from transforms.storage.scratch import scratch_path

_HALVES = Struct("=QQ")
_HALF = "Q"
_NUMBER = "I"
_OFFSET = "Q"
_MARK = b"rbasked1"
_FOOTER = Struct("=8sQ")


def asked_path(folder: str, batch_key: str) -> str:
    """Return where the run whose asked files are in `folder` keeps its requests of a batch."""
    return join(folder, f"{batch_key}.asked")


def results_folder(path: str) -> str:
    """Return where this machine keeps the results of a batch while it reads them: beside its asked file, or on its disk."""
    return scratch_path("results") if is_remote(path) else str(Path(path).with_suffix(".results"))


class AskedWriter:
    """Writes one file of packed requests; it takes its name when `close` has made it whole and durable."""

    def __init__(self, path: str) -> None:
        """Begin the file, under a hidden name in the same folder."""
        self._path = path
        self._draft = DraftFile(parent(path))
        self._numbers: dict[bytes, int] = {}
        self._offsets = array(_OFFSET, [0])

    def add(self, request_id: str, packed: bytes) -> None:
        """Add one request.

        Raises:
            InternalError: it was added before.
        """
        digest = _digest(request_id)
        if digest in self._numbers:
            raise InternalError(f"request {request_id} comes twice for {self._path}; report this, nothing was sent")
        self._numbers[digest] = len(self._numbers)
        self._draft.write(packed)
        self._offsets.append(self._draft.size)

    def close(self) -> None:
        """Write the index and give the file its name; when this returns it survives a power cut."""
        digests = sorted(self._numbers, key=_HALVES.unpack)
        for half in (0, 1):
            self._draft.write(array(_HALF, [_HALVES.unpack(digest)[half] for digest in digests]).tobytes())
        self._draft.write(array(_NUMBER, [self._numbers[digest] for digest in digests]).tobytes())
        self._draft.write(self._offsets.tobytes())
        self._draft.write(_FOOTER.pack(_MARK, len(digests)))
        self._draft.publish(self._path)

    def discard(self) -> None:
        """Drop the file."""
        self._draft.discard()


class AskedFile:
    """The packed requests of one file, each to be taken once. `len` and `in` count those taken too."""

    def __init__(self, path: str) -> None:
        """Open the file and load its index.

        Raises:
            FileNotFoundError: there is none.
            InternalError: it is damaged.
        """
        self._path = path
        self._descriptor = os.open(local_copy(path), os.O_RDONLY)
        try:
            self._load()
        except BaseException:
            self.close()
            raise
        self._taken = bytearray(len(self))

    def take(self, request_id: str, likely: int | None = None) -> bytes | None:
        """Return a request's packed bytes; None when it was taken before or this run did not ask it.

        Args:
            request_id: of the request.
            likely: its number, if all were added in the order that the caller numbers them in: then it is not
                looked for.
        """
        if likely is not None and likely < len(self) and not self._taken[likely]:
            packed = self._packed(likely)
            if is_packed_of(packed, request_id):
                self._taken[likely] = True
                return packed
        number = self._find(request_id)
        if number is None or self._taken[number]:
            return None
        self._taken[number] = True
        return self._packed(number)

    def rest(self) -> Iterator[bytes]:
        """Yield the packed requests that nobody has taken, in the order they were added; takes none."""
        for number, is_taken in enumerate(self._taken):
            if not is_taken:
                yield self._packed(number)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, request_id: str) -> bool:
        return self._find(request_id) is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self) -> None:
        end = os.fstat(self._descriptor).st_size - _FOOTER.size
        mark, count = _FOOTER.unpack(self._read(end, _FOOTER.size)) if end >= 0 else (b"", 0)
        columns = ((_HALF, count), (_HALF, count), (_NUMBER, count), (_OFFSET, count + 1))
        sizes = [array(code).itemsize * length for code, length in columns]
        start = end - sum(sizes)
        if mark != _MARK or start < 0:
            raise self._damaged()
        places = accumulate(sizes[:-1], initial=start)
        self._highs, self._lows, self._numbers, self._offsets = (
            array(code, self._read(place, size)) for (code, _), place, size in zip(columns, places, sizes, strict=True)
        )
        if self._offsets[-1] != start:
            raise self._damaged()

    def _find(self, request_id: str) -> int | None:
        high, low = _HALVES.unpack(_digest(request_id))
        place = bisect_left(self._highs, high)
        while place < len(self._highs) and self._highs[place] == high:
            if self._lows[place] == low:
                return self._numbers[place]
            place += 1
        return None

    def _packed(self, number: int) -> bytes:
        start = self._offsets[number]
        return self._read(start, self._offsets[number + 1] - start)

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:
            # One system call gives 2 GiB at most.
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                raise self._damaged()
            data += more
        return data

    def _damaged(self) -> InternalError:
        return InternalError(
            f"{self._path} is damaged; run the same job again (a new run writes it anew, and sends nothing twice)"
        )


def _digest(request_id: str) -> bytes:
    return blake2b(request_id.encode("utf-8"), digest_size=_HALVES.size).digest()
