"""A worker's look at the lease of its output: whether the run that it works for still holds it.

The launching process renews the lease and stops its own calls when it loses it. Workers elsewhere can't be told, so
they look: as long as the lease names their run, or can't be read just now, they go on.
"""

import threading
from collections.abc import Callable

import orjson

from transforms.storage.objects import join, read_bytes

#: Far below a lease's time to live, and on a bucket one small read.
LOOK_S = 10.0


class LeaseWatch:
    """Looks at `ledger/lease.json` until it names another run, or `close`."""

    def __init__(self, ledger: str, run_id: str, lost: Callable[[], None], look_s: float = LOOK_S) -> None:
        """Begin to look.

        Args:
            ledger: the ledger's folder.
            run_id: whose lease it should be.
            lost: called once, from the watch's thread, when another run holds the output.
            look_s: seconds between looks.
        """
        self._path = join(ledger, "lease.json")
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
        while not self._done.wait(self._look_s):
            if self._is_anothers():
                self._lost()
                return

    def _is_anothers(self) -> bool:
        try:
            return bool(orjson.loads(read_bytes(self._path))["run_id"] != self._run_id)
        except (OSError, ValueError, KeyError, TypeError):
            # Given back, or out of reach for the moment: nobody else has it.
            return False
