"""A worker far from the launching process learns that another run has the output."""

import threading
from pathlib import Path

import pytest

from transforms.storage.lease import Lease
from transforms.storage.lease_watch import LeaseWatch
from transforms.storage.objects import write_atomic


@pytest.fixture
def lost() -> threading.Event:
    """Set when the watch says so."""
    return threading.Event()


def test_another_runs_lease_is_seen(tmp_path: Path, lost: threading.Event) -> None:
    """While it is ours, gone or damaged the worker goes on; when it names another run it is told, once."""
    ledger = str(tmp_path)
    watch = LeaseWatch(ledger, "run-1", lost.set, look_s=0.01)
    assert not lost.wait(0.05)
    with Lease(ledger, "run-1"):
        assert not lost.wait(0.05)
    write_atomic(str(tmp_path / "lease.json"), b"{")
    assert not lost.wait(0.05)
    (tmp_path / "lease.json").unlink()
    with Lease(ledger, "run-2"):
        assert lost.wait(10)
    watch.close()


def test_a_closed_watch_looks_no_more(tmp_path: Path, lost: threading.Event) -> None:
    """Nothing of it is left."""
    watch = LeaseWatch(str(tmp_path), "run-1", lost.set, look_s=0.01)
    watch.close()
    with Lease(str(tmp_path), "run-2"):
        assert not lost.wait(0.05)
