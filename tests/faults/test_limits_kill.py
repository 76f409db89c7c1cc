"""The limits hold for the job, whatever becomes of its processes: some join late, some are killed, the provider counts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from pipelines.sandbox.server import RunningSandbox
from tests.conformance.batch_jobs import KEY
from tests.faults.limits_worker import PACE, RUN_ID

_ROOT = Path(__file__).resolve().parents[2]
_IN_FLIGHT = 6
_PER_MINUTE = 600
_PATIENCE_S = 30


class Workers:
    """Worker processes of one run; what is left of them ends with the `with` block."""

    def __init__(self, ledger, base_url):
        pool = {"max_in_flight": _IN_FLIGHT, "requests_per_minute": _PER_MINUTE}
        self._arguments = orjson.dumps([str(ledger), base_url, pool]) + b"\n"
        self._file = ledger / "limits" / f"{RUN_ID}.json"
        self._forker = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.limits_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
        )

    def __enter__(self):
        assert self._forker.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_):
        self._forker.communicate(timeout=_PATIENCE_S)

    def start(self):
        """Start one and return its process id."""
        self._forker.stdin.write(self._arguments)
        self._forker.stdin.flush()
        return int(self._forker.stdout.readline())

    def end(self):
        """Tell all to end, wait for it, and return how each did."""
        return [int(code) for code in self._forker.communicate(timeout=_PATIENCE_S)[0].split()]

    def held(self):
        """Return what each holds, by the file."""
        found = orjson.loads(self._file.read_bytes())["members"] if self._file.exists() else {}
        return sorted(member["units"] for member in found.values())

    def until(self, parts):
        """Wait until they hold these parts."""
        deadline = time.monotonic() + _PATIENCE_S
        while (held := self.held()) != parts:
            assert time.monotonic() < deadline, f"they hold {held}, and not {parts}"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def sandbox(_closed_world):
    """A provider without limits of its own: what holds is ours."""
    with RunningSandbox(latency_s=0.2) as running:
        yield running


def _check(sandbox):
    """See that the provider never had more than the limits at once, nor in any stretch of time; return when it was asked."""
    assert sandbox.stats()["peak_concurrency"] <= _IN_FLIGHT
    times = sorted(entry["time"] for entry in sandbox.bill(entries=True)["entries"])
    # What was admitted may reach the provider a little later, as many as may be in flight at once.
    at_once = _PER_MINUTE / 6 + _IN_FLIGHT
    for first in range(0, len(times), 10):
        for last in range(first, len(times), 10):
            assert last - first + 1 <= at_once + (times[last] - times[first]) * _PER_MINUTE / 60
    return times


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_processes_share_the_limits_of_one_job(tmp_path, sandbox, monkeypatch, rounds):
    """They join one after another, and are killed: never more than one process alone would send, and not much less."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    sandbox.reset()
    with Workers(tmp_path / "ledger", sandbox.base_url("openai")) as workers:
        pids = [workers.start()]
        workers.until([6])
        pids.append(workers.start())
        for _ in range(rounds):
            pids.append(workers.start())
            workers.until([2, 2, 2])
            os.kill(pids.pop(0), signal.SIGKILL)
            killed_at = time.monotonic()
            workers.until([3, 3])
            assert time.monotonic() - killed_at > PACE.ttl_of(3) - PACE.turn_of(3)
        since = time.time()
        time.sleep(1.0)
        times = _check(sandbox)
        assert sum(at > since for at in times) >= 0.5 * _PER_MINUTE / 60
        assert sorted(workers.end()) == [-signal.SIGKILL] * rounds + [0, 0]
        assert workers.held() == []
