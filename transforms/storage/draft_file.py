"""A file that grows under a hidden name and gets its real one late, when it is complete and on disk."""

from pathlib import Path

from transforms.storage.objects import ensure_folder, join, publish, sync_file, temporary_path

_BUFFER_BYTES = 1 << 18


class DraftFile:
    """Bytes written one after another, buffered; nobody sees them before `publish`.

    Attributes:
        size: bytes written so far.
    """

    def __init__(self, folder: str) -> None:
        """Begin an empty file in `folder`, which is made if it is missing."""
        ensure_folder(folder)
        self._temporary = temporary_path(join(folder, "draft"))
        self._file = Path(self._temporary).open("xb", buffering=_BUFFER_BYTES)  # noqa: SIM115 - closed by publish
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(data)
        self.size += len(data)

    def publish(self, path: str) -> None:
        """Call the file `path`, in the same folder; when this returns it survives a power cut.

        Raises:
            OSError: the disk is full and the like; nothing is called `path` that was not before.
        """
        try:
            self._file.close()
            sync_file(self._temporary)
        except OSError:
            self.discard()
            raise
        publish(self._temporary, path)

    def discard(self) -> None:
        """Drop the file; does nothing to one that is published."""
        try:
            self._file.close()
        except OSError:
            # The disk is full: what the buffer holds is dropped with the file.
            pass
        finally:
            Path(self._temporary).unlink(missing_ok=True)
