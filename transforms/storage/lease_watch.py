"""A worker's look at its run: whether it still has the output, and has not been closed.

The launching process renews the lease and stops its own calls when it loses it. Workers elsewhere can't be told, so
they look, before their first call and then every few seconds: at the lease, which names the run that has the output,
and at the run's own manifest, which whoever takes an output over closes first, and which stays when the lease is given
back. What can't be read just now changes nothing.
"""

import re
import threading
from collections.abc import Callable

import orjson

from transforms.storage.objects import join, parent, read_bytes
from transforms.storage.run_folder import RUNNING, RunFolder

#: Far below a lease's time to live, and on a bucket one small read.
LOOK_S = 10.0
_RUN_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")


class LeaseWatch:
    """Looks until another run has the output or its own is closed, or until `close`."""

    def __init__(self, ledger: str, run_id: str, lost: Callable[[], None], look_s: float = LOOK_S) -> None:
        """Begin to look.

        Args:
            ledger: the ledger's folder.
            run_id: whose lease it should be.
            lost: called once, from the watch's thread.
            look_s: seconds between looks.
        """
        self._lease = join(ledger, "lease.json")
        self._manifest = RunFolder(parent(ledger), run_id).manifest
        self._run_id = run_id
        self._lost = lost
        self._look_s = look_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rowbeam-lease-look", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._done.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _watch(self) -> None:
        while not (self._is_over() or self._done.wait(self._look_s)):
            pass
        if not self._done.is_set():
            self._lost()

    def _is_over(self) -> bool:
        holder = _value(self._lease, "run_id")
        # A tool that holds the output for a moment, such as `batches --resolve`, is no run and takes nothing over.
        is_anothers = holder != self._run_id and holder is not None and _RUN_ID.fullmatch(holder) is not None
        return is_anothers or _value(self._manifest, "status") not in (RUNNING, None)


def _value(path: str, name: str) -> str | None:
    """Return a text of a JSON file; None where it can't be had just now."""
    try:
        return str(orjson.loads(read_bytes(path))[name])
    except (OSError, ValueError, KeyError, TypeError):
        return None
