"""One run at a time per output, and no output stays blocked by a run that is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from transforms.records.errors import InternalError, OutputBusyError
from transforms.storage import processes
from transforms.storage.lease import Lease

_ROOT = {"PYTHONPATH": str(Path(__file__).parents[2])}

_HOLDER = """
import sys, time
from transforms.storage.lease import Lease
lease = Lease(sys.argv[1], "killed-run")
lease.acquire()
print("held", flush=True)
time.sleep(60)
"""

_TAKER = """
import sys
from transforms.records.errors import OutputBusyError
from transforms.storage.lease import Lease
lease = Lease(sys.argv[1], sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    lease.acquire()
    print("won", flush=True)
except OutputBusyError:
    print("busy", flush=True)
sys.stdin.readline()
"""


class _Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


def _killed_holder(folder: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, env=_ROOT
    )
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=30)
    holder.stdout.close()


def test_a_second_run_is_told_who_holds_the_output(tmp_path: Path) -> None:
    """The error names run, process, host, since when, and what to do."""
    clock = _Clock()
    with Lease(str(tmp_path / "ledger"), "run-1", clock=clock), pytest.raises(OutputBusyError) as caught:
        Lease(str(tmp_path / "ledger"), "run-2", clock=clock).acquire()
    said = str(caught.value)
    for part in ("run-1", f"process {os.getpid()}", str(tmp_path), "since 2026-11-18 11:06:40 UTC", "60 seconds"):
        assert part in said


def test_a_released_lease_is_free(tmp_path: Path) -> None:
    """After the first run's end, the next one gets the lease at once."""
    for run in ("run-1", "run-2"):
        with Lease(str(tmp_path), run) as lease:
            assert not lease.lost
    assert not (tmp_path / "lease.json").exists()


def test_a_killed_runs_lease_is_taken_over_at_once(tmp_path: Path) -> None:
    """The owner's process is gone, so there is nothing to wait for."""
    _killed_holder(tmp_path)
    with Lease(str(tmp_path), "run-2"):
        assert orjson.loads((tmp_path / "lease.json").read_bytes())["run_id"] == "run-2"


@pytest.mark.parametrize(
    ("change", "is_free"),
    [
        pytest.param({}, False, id="alive"),
        pytest.param({"started": "1"}, True, id="another process has its pid"),
        pytest.param({"host": "elsewhere", "started": "1"}, False, id="other host: unknown"),
        pytest.param({"realm": "another container", "started": "1"}, False, id="other container: unknown"),
    ],
)
def test_a_lease_is_taken_over_only_from_an_owner_that_is_surely_gone(
    tmp_path: Path, change: dict[str, str], is_free: bool
) -> None:
    """Pids prove something only on the same machine, with the same start time."""
    lease = Lease(str(tmp_path), "run-1")
    lease.acquire()
    held = orjson.loads((tmp_path / "lease.json").read_bytes())
    held["owner"] |= change
    (tmp_path / "lease.json").write_bytes(orjson.dumps(held))
    other = Lease(str(tmp_path), "run-2")
    if is_free:
        other.acquire()
        other.release()
    else:
        with pytest.raises(OutputBusyError):
            other.acquire()
    lease.release()


def test_an_expired_lease_is_taken_over_and_its_owner_learns_it(tmp_path: Path) -> None:
    """The first owner sees the loss at its next beat, and its release leaves the new owner's lease alone."""
    clock = _Clock()
    first = Lease(str(tmp_path), "run-1", ttl_s=0.3, clock=clock)
    first.acquire()
    clock.now += 1
    second = Lease(str(tmp_path), "run-2", ttl_s=60, clock=clock)
    second.acquire()
    deadline = time.monotonic() + 10
    while not first.lost and time.monotonic() < deadline:
        time.sleep(0.02)
    assert first.lost
    first.release()
    assert orjson.loads((tmp_path / "lease.json").read_bytes())["run_id"] == "run-2"
    assert not second.lost
    second.release()


def test_a_held_lease_is_renewed(tmp_path: Path) -> None:
    """The expiry moves on while the owner lives, past its first time to live."""
    with Lease(str(tmp_path), "run-1", ttl_s=0.3) as lease:
        time.sleep(0.8)
        held = orjson.loads((tmp_path / "lease.json").read_bytes())
        assert held["expires_at"] - held["acquired_at"] > 0.6
        assert not lease.lost
        with pytest.raises(OutputBusyError):
            Lease(str(tmp_path), "run-2", ttl_s=0.3).acquire()


def test_a_lease_that_cannot_be_renewed_is_lost_when_it_expires(tmp_path: Path) -> None:
    """One failed beat is no loss; a failure that lasts until the expiry is."""
    clock = _Clock()
    lease = Lease(str(tmp_path), "run-1", ttl_s=0.15, clock=clock)
    lease.acquire()
    (tmp_path / "lease.json").write_text("damaged")
    time.sleep(0.2)
    assert not lease.lost
    clock.now += 1
    deadline = time.monotonic() + 10
    while not lease.lost and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lease.lost


def test_of_many_takers_exactly_one_wins(tmp_path: Path) -> None:
    """Six processes take over a dead run's lease at the same moment."""
    _killed_holder(tmp_path)
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKER, str(tmp_path), f"run-{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_ROOT,
        )
        for n in range(6)
    ]
    for taker in takers:
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        taker.stdin.write("go\n")
        taker.stdin.flush()
    results = [taker.stdout.readline().strip() for taker in takers]
    for taker in takers:
        taker.communicate("end\n", timeout=30)
    assert sorted(results) == ["busy"] * 5 + ["won"]


def test_a_damaged_lease_is_named(tmp_path: Path) -> None:
    """Nobody guesses who holds an output: the error names the file and says when to delete it."""
    (tmp_path / "lease.json").write_text("{}")
    with pytest.raises(InternalError, match=r"lease\.json can't be understood"):
        Lease(str(tmp_path), "run-1").acquire()


def test_a_zombie_counts_as_dead() -> None:
    """A killed process that its parent has not reaped yet holds nothing any more."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    me = processes.this_process()
    identity = processes.ProcessId(me.host, me.realm, child.pid, processes._started(child.pid))
    assert not processes.is_dead(identity)
    child.kill()
    deadline = time.monotonic() + 10
    while not processes.is_dead(identity) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.is_dead(identity)
    child.wait(timeout=10)


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="needs ps")
def test_start_times_can_be_had_from_ps() -> None:
    """Where there is no /proc, ps tells the start of a live process and nothing of a dead one."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = processes._started_by_ps(child.pid)
    assert started
    assert started == processes._started_by_ps(child.pid)
    child.kill()
    child.wait(timeout=10)
    assert processes._started_by_ps(child.pid) is None
