r"""Physical lines of a text file, plain or gzip, as a stream: the ground that the CSV and JSONL readers stand on.

Lines end at "\n" and nowhere else. Memory is bounded: of a line longer than MAX_LINE_BYTES only the beginning is
kept. A gzip file that is cut or damaged gives the lines that can be read, then ends; `damage` then says why.
"""

import gzip
import io
import zlib
from collections import deque
from types import TracebackType
from typing import Self

from transforms.records.failure import DeadLetter, FailureKind
from transforms.storage.input_schema import InputFile, unread_line
from transforms.storage.objects import open_read

#: A longer line is refused; `take` gives its first MAX_LINE_BYTES + 1 bytes.
MAX_LINE_BYTES = 16 << 20

_BUFFER_BYTES = 1 << 18
_BOM = b"\xef\xbb\xbf"


class LineSource:
    """The lines of one file, with a way back for a reader that looked ahead too far.

    Attributes:
        number: the 1-based number of the line that `take` gave last.

    Raises:
        OSError: the file can't be opened or read.
    """

    def __init__(self, file: InputFile) -> None:
        self.number = 0
        self._path = file.path
        self._gzip = _GzipBytes(file.location) if file.compressed else None
        self._buffer = io.BufferedReader(self._gzip, _BUFFER_BYTES) if self._gzip else open_read(file.location)
        self._returned: deque[bytes] = deque()
        self._tail = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._buffer.close()

    def take(self) -> bytes | None:
        """Give the next line with its end, or None at the end of the file. A byte-order mark is left out."""
        if self._returned:
            self.number += 1
            return self._returned.popleft()
        line = self._buffer.readline(MAX_LINE_BYTES + 1)
        if not line:
            return None
        if not line.endswith(b"\n") and not self._complete(line):
            return None
        self.number += 1
        if self.number == 1 and line.startswith(_BOM):
            line = line[len(_BOM) :]
        return line

    def give_back(self, lines: list[bytes]) -> None:
        """Take the lines that were taken last back, to give them again in the same order."""
        self.number -= len(lines)
        self._returned.extendleft(reversed(lines))

    def damage_letter(self) -> DeadLetter | None:
        """After the last line: the dead letter for what a damaged file lost, or None when it was whole."""
        if self._gzip is None or self._gzip.damage is None:
            return None
        line = self.number + 1
        reason = (
            f"line {line}: the gzip data is cut or damaged here ({self._gzip.damage}); "
            "the rows from this line on are lost, get the file again from its source"
        )
        return unread_line(self._path, line, self._tail, FailureKind.DAMAGED_FILE, reason)

    def _complete(self, line: bytes) -> bool:
        """Pass over the rest of an overlong line; False when the line was cut off by damage."""
        if len(line) > MAX_LINE_BYTES:
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = self._buffer.readline(_BUFFER_BYTES)
            return True
        if self._gzip is not None and self._gzip.damage is not None:
            self._tail = line
            return False
        return True


def overlong_letter(path: str, line: int, raw: bytes) -> DeadLetter:
    """Make the dead letter of a line that is longer than MAX_LINE_BYTES."""
    reason = (
        f"line {line} is longer than {MAX_LINE_BYTES >> 20} MiB; split it, or keep long texts in files of their own"
    )
    return unread_line(path, line, raw, FailureKind.MALFORMED_ROW, reason)


class _GzipBytes(io.RawIOBase):
    """Decompressed bytes; damage ends them instead of raising, so that what was read before is not lost."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self._raw = open_read(location)
        self._file = gzip.GzipFile(fileobj=self._raw, mode="rb")
        self.damage: str | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self.damage is not None:
            return 0
        try:
            chunk = self._file.read1(len(buffer))  # a longer read would lose what it has when the data end early
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.damage = str(error)
            return 0
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        self._raw.close()
        super().close()
