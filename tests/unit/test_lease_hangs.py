"""A lease whose renewal hangs is lost when it has expired, though the renewal has not come back."""

import threading
import time
from pathlib import Path

import pytest

from transforms.storage.lease import Lease
from transforms.storage.slot import _LocalSlot


def test_a_hanging_renewal_loses_the_lease_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner stops sending when another run may take over, not when the store has answered."""
    lease, hangs, goes_on = Lease(str(tmp_path), "run", ttl_s=0.3), threading.Event(), threading.Event()
    lease.acquire()

    def read(_slot: object) -> tuple[None, None]:
        hangs.set()
        goes_on.wait(10)
        return None, None

    with monkeypatch.context() as patch:
        patch.setattr(_LocalSlot, "read", read)
        assert hangs.wait(10)
        until = time.monotonic() + 10
        while not lease.lost:
            assert time.monotonic() < until
            time.sleep(0.01)
        goes_on.set()
        lease._heart.join(10)  # type: ignore[union-attr]
    lease.release()
