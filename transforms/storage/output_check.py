"""Whether an output folder can be written, asked before a run begins; and what to do about it when it can't."""

import errno
import os
import secrets
from pathlib import Path

from transforms.records.errors import ConfigError
from transforms.storage import gcs
from transforms.storage.objects import is_remote, join, temporary_path, write_all

#: What to do, by the system's error number; other errors are no question of where the output is.
CURES: dict[int, str] = {
    errno.ENOSPC: "the disk is full: free some space, or choose an `output` on another disk",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose an `output` on another disk",
    errno.EROFS: "it is on a read-only disk: choose an `output` that can be written",
    errno.EACCES: "there is no permission to write there: change its mode, or choose another `output`",
    errno.EPERM: "there is no permission to write there: change its mode, or choose another `output`",
    errno.ENOTDIR: "a part of the path is a file: choose a folder as `output`",
    errno.EEXIST: "it is a file: choose a folder as `output`",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter `output`",
}
_PROBE_BYTES = 4096


def check_output(path: str) -> None:
    """Make sure that a run can write to its output; leaves nothing behind and makes no folder.

    Args:
        path: the job's `output`, absolute; it may be absent.

    Raises:
        ConfigError: it is no folder, or a file can't be written there; names the path and the cure.
    """
    if is_remote(path):
        _check_bucket(path)
        return
    for part in (path, str(Path(path) / "ledger"), str(Path(path) / "runs")):
        try:
            _probe(_nearest(part))
        except OSError as error:
            cure = CURES.get(error.errno or 0, f"{error.strerror or error}: choose another `output`")
            raise ConfigError(f"output: can't write to {part}: {cure}") from error


def _check_bucket(path: str) -> None:
    probe = join(path, "ledger", f".probe-{secrets.token_hex(6)}")
    try:
        gcs.create(probe, b"")
        gcs.remove(probe)
    except OSError as error:
        raise ConfigError(f"output: {error}") from error


def _nearest(path: str) -> str:
    """Return the folder itself or, where it is absent, the one above it that is there."""
    here = Path(path)
    while not os.path.lexists(here):
        here = here.parent
    if not here.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(here))
    return str(here)


def _probe(folder: str) -> None:
    probe = temporary_path(str(Path(folder) / "probe"))
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(descriptor, bytes(_PROBE_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        Path(probe).unlink()
