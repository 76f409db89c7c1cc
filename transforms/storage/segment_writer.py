"""Writing a ledger segment: what `append` has taken, killing the process no longer loses (P4).

Each process appends to a segment of its own, `<run_id>.<host>-<pid>-<random>.jsonl`: a header line, then one line per
record, each `append`, `extend` or `extend_encoded` by one system call, so that a kill tears at most the last line
there is.
"""

import errno
import os
import re
import secrets
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from transforms.records.errors import InternalError
from transforms.storage.ledger_lines import SEGMENT_SUFFIX, SEGMENT_VERSION, LedgerRecord, encode
from transforms.storage.objects import ensure_folder, sync_folder, write_all

_CURES = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "raise the disk quota",
    errno.EIO: "check the disk",
    errno.EROFS: "mount the disk for writing",
    errno.EACCES: "give this user the right to write there",
}


class SegmentWriter:
    """Appends records to this process's own segment; may be shared by threads and carried over a fork.

    The file is created by the first `append`, so a process that records nothing leaves none. After a failed write
    the segment is given up, torn line and all, and the next `append` starts another.
    """

    def __init__(self, folder: str, run_id: str) -> None:
        """Remember where to write.

        Args:
            folder: the segments' folder, `answers` in the job's ledger.
            run_id: the run that makes the calls.
        """
        self._folder = folder
        self._run_id = run_id
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._path = folder

    def append(self, record: LedgerRecord) -> None:
        """Write one record; when this returns, killing the process no longer loses it.

        Raises:
            InternalError: the disk is full, broken or read-only; the record may not be on disk.
        """
        self._write(encode(record))

    def extend(self, records: Sequence[LedgerRecord]) -> None:
        """Write records, one after another; as `append`, once for all: a kill on the way keeps the first of them.

        Raises:
            InternalError: as `append`; which of the records are on disk is not known.
        """
        self.extend_encoded([encode(record) for record in records])

    def extend_encoded(self, lines: Sequence[bytes]) -> None:
        """Write the lines of records, as `encode` gives them; as `extend`.

        Raises:
            InternalError: as `extend`.
        """
        if lines:
            self._write(b"".join(lines))

    def sync(self) -> None:
        """Make what was appended survive a power cut; other threads may append meanwhile.

        Raises:
            InternalError: the disk reports an error.
        """
        with self._lock:
            if self._descriptor is None or self._pid != os.getpid():
                return
            descriptor = os.dup(self._descriptor)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Sync and close the segment; a later `append` starts another."""
        self.sync()
        with self._lock:
            self._give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, lines: bytes) -> None:
        if self._pid != os.getpid():
            self._forget_parent()
        with self._lock:
            try:
                if self._descriptor is None:
                    self._descriptor = self._open()
                write_all(self._descriptor, lines)
            except OSError as error:
                self._give_up()
                raise self._failed(error) from error

    def _open(self) -> int:
        ensure_folder(self._folder)
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())
        name = f"{self._run_id}.{host}-{self._pid}-{secrets.token_hex(4)}{SEGMENT_SUFFIX}"
        self._path = str(Path(self._folder) / name)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        header = {
            "type": "segment",
            "version": SEGMENT_VERSION,
            "run_id": self._run_id,
            "host": socket.gethostname(),
            "pid": self._pid,
        }
        try:
            write_all(descriptor, orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE))
            sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _give_up(self) -> None:
        if self._descriptor is not None and self._pid == os.getpid():
            os.close(self._descriptor)
        self._descriptor = None

    def _forget_parent(self) -> None:
        # The lock may have been held by a thread that the fork did not copy; the descriptor is the parent's segment.
        self._lock = threading.Lock()
        self._descriptor = None
        self._pid = os.getpid()

    def _failed(self, error: OSError) -> InternalError:
        cure = _CURES.get(error.errno or 0, "see to the disk")
        return InternalError(
            f"can't write the ledger at {self._path}: {error.strerror}; {cure}, then run the same job again "
            f"(it goes on from what is recorded)"
        )
