"""A ledger segment in a bucket, where nothing can be appended to: an object of what came in every few seconds.

Records are safe when `sync` returns, which every bundle asks for before its results count; between two syncs a thread
writes what there is, so that a worker that dies loses the answers of a few seconds at most.
"""

import os
import re
import secrets
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import orjson

from transforms.records.errors import InternalError
from transforms.storage import gcs
from transforms.storage.ledger_lines import SEGMENT_SUFFIX, SEGMENT_VERSION, LedgerRecord, encode
from transforms.storage.objects import join

#: How long an answer may wait for its object. Shorter loses less with a dying worker, and makes more objects to list.
FLUSH_S = 2.0
#: So much is written at once, and whoever appends more than the second waits for the bucket: memory stays flat.
_FLUSH_BYTES = 8 << 20
_MOST_BYTES = 64 << 20


class BucketSegment:
    """Collects records and writes them as objects `<run_id>.<host>-<pid>-<random>-<number>.jsonl`. Thread-safe.

    A process that records nothing leaves nothing. May be carried over a fork, which leaves what its parent has.
    """

    def __init__(self, folder: str, run_id: str, flush_s: float = FLUSH_S) -> None:
        """Remember where to write.

        Args:
            folder: the segments' folder, `answers` in the job's ledger.
            run_id: the run that makes the calls.
            flush_s: how often the thread writes.
        """
        self._folder = folder
        self._run_id = run_id
        self._flush_s = flush_s
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # of the buffer
        self._writing = threading.Lock()  # of the bucket: objects are numbered in the order of their records
        self._lines: list[bytes] = []
        self._bytes = 0
        self._chunk = b""  # what is on its way to the bucket
        self._number = 0
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())
        self._name = f"{self._run_id}.{host}-{self._pid}-{secrets.token_hex(4)}"

    def append(self, record: LedgerRecord) -> None:
        """Take one record; it is safe after the next `sync`, and mostly a few seconds later by itself.

        Raises:
            InternalError: the bucket refuses, and more waits for it than memory should hold.
        """
        self._take(encode(record))

    def extend(self, records: Sequence[LedgerRecord]) -> None:
        """Take records, one after another; as `append`."""
        self.extend_encoded([encode(record) for record in records])

    def extend_encoded(self, lines: Sequence[bytes]) -> None:
        """Take the lines of records, as `encode` gives them; as `extend`."""
        if lines:
            self._take(b"".join(lines))

    def sync(self) -> None:
        """Write what was taken; when this returns no death of this process or machine loses it.

        Raises:
            InternalError: the bucket refuses or can't be reached; what was taken is kept for another try.
        """
        if self._pid != os.getpid():
            return
        with self._writing:
            # What failed goes again as it was, under its name: an object that is there after all is not doubled.
            while self._chunk or self._next():
                path = join(self._folder, f"{self._name}-{self._number:05d}{SEGMENT_SUFFIX}")
                try:
                    gcs.put(path, self._chunk)
                except OSError as error:
                    raise InternalError(
                        f"can't write the ledger: {error}; then run the same job again "
                        f"(it goes on from what is recorded)"
                    ) from error
                self._chunk = b""
                self._number += 1

    def _next(self) -> bool:
        with self._lock:
            lines, self._lines = self._lines, []
            self._bytes = 0
        self._chunk = b"".join((self._header(), *lines)) if lines else b""
        return bool(lines)

    def close(self) -> None:
        """Write what was taken and end the thread; a later `append` begins again."""
        thread, self._closed = self._thread, True
        self._wake.set()
        if thread is not None and self._pid == os.getpid():
            thread.join()
        with self._lock:
            self._thread, self._closed = None, False
        self.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, lines: bytes) -> None:
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            self._lines.append(lines)
            self._bytes += len(lines)
            size = self._bytes
            if self._thread is None:
                self._wake.clear()
                self._thread = threading.Thread(target=self._flush, name="rowbeam-segment", daemon=True)
                self._thread.start()
        if size > _MOST_BYTES:
            self.sync()
        elif size > _FLUSH_BYTES:
            self._wake.set()

    def _flush(self) -> None:
        while not self._closed:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            try:
                self.sync()
            except InternalError:
                # Nothing is lost: what was taken is kept, and whoever asks for `sync` is told.
                continue

    def _header(self) -> bytes:
        header = {
            "type": "segment",
            "version": SEGMENT_VERSION,
            "run_id": self._run_id,
            "host": socket.gethostname(),
            "pid": self._pid,
        }
        return orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE)
