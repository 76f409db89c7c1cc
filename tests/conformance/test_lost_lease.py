"""A run whose lease another run took over sends no more and claims nothing (one run at a time per output)."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from pipelines import run as launcher
from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import Output, plain_rows, run
from transforms.records.errors import OutputBusyError
from transforms.storage.lease import Lease
from transforms.storage.runs import list_runs

_ROWS = 200


class _HastyLease(Lease):
    """A lease that is renewed ten times a second."""

    def __init__(self, ledger_folder: str, run_id: str) -> None:
        super().__init__(ledger_folder, run_id, ttl_s=0.3)


def _take_over(output: Path, sandbox: RunningSandbox) -> None:
    """Put another run's name on the lease when some calls have been answered."""
    until = time.monotonic() + 30
    while sandbox.bill()["accepted"] < 5 and time.monotonic() < until:
        time.sleep(0.01)
    path = output / "ledger" / "lease.json"
    taken = orjson.loads(path.read_bytes()) | {"token": "another", "run_id": "another-run"}
    taken["expires_at"] += 600
    path.write_bytes(orjson.dumps(taken))


def test_a_run_that_loses_its_lease_stops(
    make_job: Callable[..., Path],
    sandbox: RunningSandbox,
    output: Output,
    runner: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends as busy, with calls unsent and no result; its paid answers serve the run that comes after."""
    monkeypatch.setattr(launcher, "Lease", _HastyLease)
    monkeypatch.setattr(launcher, "_LEASE_LOOK_S", 0.05)
    sandbox.set_faults(slow=1.0)
    job = make_job(plain_rows(_ROWS), pool={"max_in_flight": 5})
    taker = threading.Thread(target=_take_over, args=(output.folder, sandbox))
    taker.start()
    with pytest.raises(OutputBusyError, match="lost its lease"):
        run(job, runner=runner)
    taker.join()
    paid = sandbox.bill()["accepted"]
    assert 5 <= paid < _ROWS
    lease = output.folder / "ledger" / "lease.json"
    assert orjson.loads(lease.read_bytes())["run_id"] == "another-run", "it is no longer ours to give back"
    assert [one["status"] for one in list_runs(str(output.folder))] == ["running"]
    assert not (output.folder / "latest.json").exists()

    lease.unlink()
    sandbox.set_faults()
    monkeypatch.undo()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sandbox-key-0123456789")
    after = run(job, runner=runner)
    assert after.summary["rows"]["enriched"] == _ROWS
    assert after.summary["calls"]["sent"] == _ROWS - paid
    assert sandbox.bill()["accepted"] == _ROWS
