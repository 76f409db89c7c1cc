"""One small file that is read, and replaced only by whoever read it last: compare and swap, on a disk or in a bucket."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from transforms.storage import gcs
from transforms.storage.objects import ensure_folder, is_remote, join, read_bytes, sync_folder, write_atomic

#: What a content is known by: itself on a disk, its generation in a bucket.
Version = bytes | int | None


class Slot(Protocol):
    """A file that several processes, and machines, change one after another.

    Attributes:
        path: where it is.
    """

    path: str

    def read(self) -> tuple[bytes | None, Version]:
        """Return the content (None: there is no file) and the version to swap by."""

    def swap(self, version: Version, data: bytes | None) -> bool:
        """Replace the content, or with None remove the file, if it is still that version; False when it is not."""


def open_slot(folder: str, name: str) -> Slot:
    """Return the slot `name` of a folder, which is made if it is missing."""
    ensure_folder(folder)
    return _BucketSlot(join(folder, name)) if is_remote(folder) else _LocalSlot(folder, name)


class _LocalSlot:
    """Changes are made under a kernel lock on a second file, which stays."""

    def __init__(self, folder: str, name: str) -> None:
        self.path = join(folder, name)
        self._folder = folder
        self._lock = Path(folder) / f"{Path(name).stem}.lock"

    def read(self) -> tuple[bytes | None, Version]:
        try:
            data = read_bytes(self.path)
        except FileNotFoundError:
            return None, None
        return data, data

    def swap(self, version: Version, data: bytes | None) -> bool:
        with self._locked():
            if self.read()[0] != version:
                return False
            if data is not None:
                write_atomic(self.path, data)
            else:
                Path(self.path).unlink()
                sync_folder(self._folder)
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # Said aloud, because a child forked meanwhile holds a copy of the descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


class _BucketSlot:
    """Changes carry the generation they were decided by."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> tuple[bytes | None, Version]:
        try:
            return gcs.get_versioned(self.path)
        except FileNotFoundError:
            return None, 0

    def swap(self, version: Version, data: bytes | None) -> bool:
        assert isinstance(version, int)  # noqa: S101 - what `read` gave
        return gcs.swap(self.path, data, version)
