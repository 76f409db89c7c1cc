"""Files that are whole or absent: the only way anything is put at rest, except for the ledger's segments.

What enters is a path and bytes; what is guaranteed when a function returns is that the file and its folder entry
survive a power cut. Temporary files start with a dot, and `list_files` does not show them, so what a killed process
leaves behind is never read.
"""

import errno
import hashlib
import os
import secrets
from pathlib import Path

from transforms.records.errors import RowbeamError

_CHUNK_BYTES = 1 << 20
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})


def create_if_absent(path: str, data: bytes) -> bool:
    """Create `path` with `data`, unless it exists; exactly one of any number of racing processes gets True.

    Readers see the whole file or none. When False comes back, the file that is there is durable too.

    Raises:
        RowbeamError: the file system has no hard links, so exclusive creation with content is impossible.
        OSError: the disk is full, the folder is read-only, and the like.
    """
    target = Path(path)
    temporary = _write_temporary(path, data)
    try:
        target.hardlink_to(temporary)
        created = True
    except FileExistsError:
        created = False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        raise RowbeamError(
            f"can't create {path}: its file system has no hard links; use an `output` folder on another disk"
        ) from error
    finally:
        Path(temporary).unlink()
    sync_folder(str(target.parent))
    return created


def write_atomic(path: str, data: bytes) -> None:
    """Create or replace `path`: readers see the old bytes or the new ones, never a mixture.

    Raises:
        OSError: the disk is full, the folder is read-only, and the like; the old file is then untouched.
    """
    publish(_write_temporary(path, data), path)


def publish(temporary: str, path: str) -> None:
    """Rename a finished, synced file of the same folder to `path`, replacing what is there, durably."""
    source = Path(temporary)
    try:
        target = source.replace(path)
    except OSError:
        source.unlink(missing_ok=True)
        raise
    sync_folder(str(target.parent))


def temporary_path(path: str) -> str:
    """Return an unused hidden name in the folder of `path`, for a file that `publish` will rename."""
    target = Path(path)
    return str(target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp"))


def read_bytes(path: str) -> bytes:
    """Return the whole content of `path`; raises FileNotFoundError when it is absent."""
    return Path(path).read_bytes()


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Return the paths of the files directly in `folder` that end in `suffix`, sorted; [] if there is no folder.

    Hidden files, such as temporary ones, are left out.
    """
    try:
        with os.scandir(folder) as entries:
            paths = [e.path for e in entries if e.name.endswith(suffix) and e.name[0] != "." and e.is_file()]
    except FileNotFoundError:
        return []
    return sorted(paths)


def sha256_file(path: str) -> tuple[str, int]:
    """Return the hex sha256 and the size in bytes of `path`, reading it in pieces."""
    digest = hashlib.sha256()
    size = 0
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def ensure_folder(folder: str) -> None:
    """Create `folder` and its missing parents, durably; does nothing when it is there."""
    path = Path(folder)
    if path.is_dir():
        return
    parent = str(path.absolute().parent)
    ensure_folder(parent)
    path.mkdir(exist_ok=True)
    sync_folder(parent)


def sync_folder(folder: str) -> None:
    """Make the entries of `folder` (creations, renames, removals) survive a power cut."""
    sync_file(folder)


def sync_file(path: str) -> None:
    """Make what was written to `path`, by whatever process, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, in one system call unless the kernel takes less."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, data[written:])


def _write_temporary(path: str, data: bytes) -> str:
    ensure_folder(str(Path(path).parent))
    temporary = temporary_path(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    except OSError:
        Path(temporary).unlink()
        raise
    finally:
        os.close(descriptor)
    return temporary
