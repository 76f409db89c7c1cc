"""Local copies of what lies in a bucket: what is written before it goes up, and what random access needs down here.

One hidden folder per process under the machine's temporary folder (`TMPDIR`), removed when the process ends.
"""

import atexit
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

_lock = threading.Lock()


def scratch_path(path: str) -> str:
    """Return an unused local name for a file that will be called `path`; its suffix is kept."""
    return str(_folder() / f"{secrets.token_hex(8)}-{Path(path).name}")


def cached_path(path: str, generation: int) -> str:
    """Return the local name for one generation of an object, the same at each call."""
    name = hashlib.sha256(f"{path}#{generation}".encode()).hexdigest()[:24]
    return str(_folder() / f"{name}-{Path(path).name}")


def _folder() -> Path:
    with _lock:
        return _folder_of(os.getpid())


@lru_cache(maxsize=1)
def _folder_of(pid: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rowbeam-"))
    atexit.register(_remove, folder, pid)
    return folder


def _remove(folder: Path, pid: int) -> None:
    # A fork inherits the registration, and must not remove what its parent works with.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
