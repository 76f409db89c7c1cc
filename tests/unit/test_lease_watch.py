"""A worker far from the launching process learns that another run has the output."""

import threading
from pathlib import Path

import orjson
import pytest

from transforms.storage.lease import Lease
from transforms.storage.lease_watch import LeaseWatch
from transforms.storage.objects import write_atomic

_OURS = "20260101T000000-000001"


@pytest.fixture
def lost() -> threading.Event:
    """Set when the watch says so."""
    return threading.Event()


def test_another_runs_lease_is_seen(tmp_path: Path, lost: threading.Event) -> None:
    """While it is ours, gone or damaged the worker goes on; when it names another run it is told, once."""
    ledger = str(tmp_path)
    watch = LeaseWatch(ledger, _OURS, lost.set, look_s=0.01)
    assert not lost.wait(0.05)
    with Lease(ledger, _OURS):
        assert not lost.wait(0.05)
    write_atomic(str(tmp_path / "lease.json"), b"{")
    assert not lost.wait(0.05)
    (tmp_path / "lease.json").unlink()
    with Lease(ledger, "batches-resolve"):
        assert not lost.wait(0.05)
    with Lease(ledger, "20260102T000000-000002"):
        assert lost.wait(10)
    watch.close()


@pytest.mark.parametrize(("status", "is_lost"), [("running", False), ("crashed", True), ("done", True)])
def test_a_run_that_was_closed_is_over_though_nobody_holds_the_output(
    tmp_path: Path, lost: threading.Event, status: str, is_lost: bool
) -> None:
    """Whoever took the output over and has ended has closed the run: a worker that starts now sends nothing."""
    write_atomic(str(tmp_path / "runs" / _OURS / "manifest.json"), orjson.dumps({"status": status}))
    watch = LeaseWatch(str(tmp_path / "ledger"), _OURS, lost.set, look_s=0.01)
    assert lost.wait(10 if is_lost else 0.05) == is_lost
    watch.close()


def test_a_closed_watch_looks_no_more(tmp_path: Path, lost: threading.Event) -> None:
    """Nothing of it is left."""
    watch = LeaseWatch(str(tmp_path), _OURS, lost.set, look_s=0.01)
    watch.close()
    with Lease(str(tmp_path), "20260102T000000-000002"):
        assert not lost.wait(0.05)
