"""Files that are whole or absent, on a disk or in a bucket: the only way anything is put at rest but segments.

What enters is a path, local or `gs://bucket/name`, and bytes; what is guaranteed when a function returns is that the
file and its folder entry survive a power cut. Temporary files start with a dot, and `list_files` does not show them,
so what a killed process leaves behind is never read. Folders of a bucket are names only: there is nothing to make.
"""

import errno
import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import IO

from transforms.records.errors import RowbeamError
from transforms.storage import gcs
from transforms.storage.scratch import cached_path, scratch_path

_CHUNK_BYTES = 1 << 20
_READ_BUFFER_BYTES = 1 << 18
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})


def is_remote(path: str) -> bool:
    """Whether a path is in a bucket."""
    return path.startswith(gcs.SCHEME)


def join(folder: str, *names: str) -> str:
    """Return the path of something in a folder."""
    return "/".join((folder.rstrip("/"), *names)) if is_remote(folder) else str(Path(folder, *names))


def parent(path: str) -> str:
    """Return the folder that a path is in."""
    return path.rpartition("/")[0] if is_remote(path) else str(Path(path).parent)


def create_if_absent(path: str, data: bytes) -> bool:
    """Create `path` with `data`, unless it exists; exactly one of any number of racing processes gets True.

    Readers see the whole file or none. When False comes back, the file that is there is durable too.

    Raises:
        RowbeamError: the file system has no hard links, so exclusive creation with content is impossible.
        OSError: the disk is full, the folder is read-only, the bucket refuses, and the like.
    """
    if is_remote(path):
        return gcs.create(path, data)
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
    if is_remote(path):
        gcs.put(path, data)
        return
    publish(_write_temporary(path, data), path)


def publish(temporary: str, path: str) -> None:
    """Give a finished, synced file that has the name `temporary_path` gave its real one, replacing what is there, durably."""
    source = Path(temporary)
    if is_remote(path):
        try:
            gcs.put_file(temporary, path)
        finally:
            source.unlink(missing_ok=True)
        return
    try:
        target = source.replace(path)
    except OSError:
        source.unlink(missing_ok=True)
        raise
    sync_folder(str(target.parent))


def temporary_path(path: str) -> str:
    """Return an unused local name for a file that `publish` will call `path`: hidden, and in its folder where that is local."""
    if is_remote(path):
        return scratch_path(path)
    target = Path(path)
    return str(target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp"))


def read_bytes(path: str) -> bytes:
    """Return the whole content of `path`; raises FileNotFoundError when it is absent."""
    return gcs.get(path) if is_remote(path) else Path(path).read_bytes()


def open_read(path: str) -> IO[bytes]:
    """Open a file for reading, buffered and seekable; raises FileNotFoundError when it is absent."""
    return gcs.open_read(path) if is_remote(path) else Path(path).open("rb", buffering=_READ_BUFFER_BYTES)


def local_copy(path: str) -> str:
    """Return a local file with the content of `path`: itself where it is local, else a copy of its newest generation.

    For readers that need a real file (memory maps, random access). The copy lasts as long as the process.

    Raises:
        FileNotFoundError: `path` is in a bucket, and absent.
    """
    if not is_remote(path):
        return path
    found = gcs.stat(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", path)
    copy = cached_path(path, found[1])
    if not Path(copy).exists():
        temporary = scratch_path(path)
        gcs.get_file(path, temporary)
        Path(temporary).replace(copy)
    return copy


def exists(path: str) -> bool:
    """Whether there is a file of this name."""
    return gcs.stat(path) is not None if is_remote(path) else Path(path).is_file()


def size(path: str) -> int:
    """Return the size of a file in bytes; raises FileNotFoundError when it is absent."""
    if not is_remote(path):
        return Path(path).stat().st_size
    found = gcs.stat(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", path)
    return found[0]


def remove(path: str) -> None:
    """Delete a file; does nothing when there is none. `sync_folder` makes that last."""
    if is_remote(path):
        gcs.remove(path)
    else:
        Path(path).unlink(missing_ok=True)


def move(source: str, target: str) -> None:
    """Give a file another name in its folder or bucket, replacing what has it; `sync_folder` makes that last.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if is_remote(source):
        gcs.move(source, target)
    else:
        Path(source).replace(target)


def list_all(folder: str) -> list[str]:
    """Return the paths of the files directly in `folder`, sorted, hidden ones among them; [] if there is no folder."""
    if is_remote(folder):
        return sorted(path for path, _ in gcs.listed(folder))
    return sorted(str(path) for path in Path(folder).iterdir()) if Path(folder).is_dir() else []


def list_folders(folder: str) -> list[str]:
    """Return the names of the folders directly in `folder`, sorted; [] if there is no folder. A bucket has no empty ones."""
    if is_remote(folder):
        return gcs.folders(folder)
    return sorted(path.name for path in Path(folder).iterdir() if path.is_dir()) if Path(folder).is_dir() else []


def list_level(folder: str, suffix: str = "") -> list[str]:
    """Return the paths of the files one folder below `folder` that end in `suffix`, sorted; [] if there is no folder."""
    if is_remote(folder):
        depth = folder.rstrip("/").count("/") + 2
        found = (path for path, _ in gcs.listed(folder, deep=True))
        return sorted(path for path in found if path.count("/") == depth and path.endswith(suffix))
    return sorted(str(path) for path in Path(folder).glob(f"*/*{suffix}"))


def remove_tree(folder: str) -> None:
    """Delete a folder with all that is in it; does nothing when there is none. `sync_folder` of its parent makes that last."""
    if is_remote(folder):
        for path, _ in gcs.listed(folder, deep=True):
            gcs.remove(path)
    elif Path(folder).is_dir():
        shutil.rmtree(folder)


def list_tree(folder: str) -> list[str]:
    """Return the paths of all files in `folder` and below, sorted, hidden ones left out; [] if there is no folder."""
    if is_remote(folder):
        paths = [path for path, _ in gcs.listed(folder, deep=True)]
    else:
        paths = [str(path) for path in Path(folder).rglob("*") if path.is_file()]
    return sorted(path for path in paths if not path.rpartition("/")[2].startswith("."))


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Return the paths of the files directly in `folder` that end in `suffix`, sorted; [] if there is no folder.

    Hidden files, such as temporary ones, are left out.
    """
    if is_remote(folder):
        found = (path for path, _ in gcs.listed(folder))
        return sorted(path for path in found if path.endswith(suffix) and not path.rpartition("/")[2].startswith("."))
    try:
        with os.scandir(folder) as entries:
            paths = [e.path for e in entries if e.name.endswith(suffix) and e.name[0] != "." and e.is_file()]
    except FileNotFoundError:
        return []
    return sorted(paths)


def sha256_file(path: str) -> tuple[str, int]:
    """Return the hex sha256 and the size in bytes of `path`, reading it in pieces."""
    digest = hashlib.sha256()
    count = 0
    with open_read(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            count += len(chunk)
    return digest.hexdigest(), count


def ensure_folder(folder: str) -> None:
    """Create `folder` and its missing parents, durably; does nothing when it is there."""
    path = Path(folder)
    if is_remote(folder) or path.is_dir():
        return
    above = str(path.absolute().parent)
    ensure_folder(above)
    path.mkdir(exist_ok=True)
    sync_folder(above)


def sync_folder(folder: str) -> None:
    """Make the entries of `folder` (creations, renames, removals) survive a power cut."""
    if not is_remote(folder):
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
