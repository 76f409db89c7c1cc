"""Uploads and inline creates kept in temporary files, so that memory stays flat whatever they hold."""

import os
import tempfile
from collections.abc import Iterator

_BLOCK = 1 << 20


class Spool:
    """A temporary file without a name: written once from front to back, then read anywhere. Gone when dropped."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives as long as the spool
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            written = self._file.write(view) or 0
            self.size += written
            view = view[written:]

    def read(self, offset: int, length: int) -> bytes:
        """Return a part; shorter when the file ends before."""
        return os.pread(self._file.fileno(), length, offset)

    def blocks(self) -> Iterator[bytes]:
        """Yield the whole in blocks of a megabyte at most."""
        offset = 0
        while block := self.read(offset, _BLOCK):
            yield block
            offset += len(block)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, line without its newline), split at newlines only; a last line needs none."""
        rest, offset = b"", 0
        for block in self.blocks():
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield offset, line
                offset += len(line) + 1
        if rest:
            yield offset, rest
