"""A worker that dies in the middle: the run says so, and the next one ends with all rows and pays for nothing twice.

FnApiRunner and Prism retry nothing: the run ends as it would if its whole process had died.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.job import load_job
from pipelines.mishaps import EXIT_INTERNAL, judge
from pipelines.run import RunRequest, run_job
from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import plain_rows, write_csv, write_job
from tests.conformance.verified_outputs import findings
from tests.engines.flink_cluster import kill, worker_pids

ROWS, IN_FLIGHT = 600, 40
_MODES: dict[str, dict[str, Any]] = {
    "real_time": {"mode": "per_request", "group_size": 50},
    "batch": {"mode": "provider_batch_api", "poll_interval": "200ms", "settle": "100ms", "max_requests": 200},
}


def _python_workers() -> list[int]:
    """Return the ids of Beam's Python workers below this process, shells left out."""
    found = []
    for pid in worker_pids(os.getpid()):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"pipelines.engine_worker" in words:
            found.append(pid)
    return found


def _kill_one_when(sandbox: RunningSandbox, is_time: Any) -> threading.Thread:
    def wait() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not is_time(sandbox.bill()):
            time.sleep(0.05)
        kill(_python_workers()[0])

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("engine", ["FnApiRunner+processes", "PrismRunner+process"], indirect=True)
def test_a_killed_worker_costs_a_run_and_nothing_more(
    mode: str, engine: list[str], slow_sandbox: RunningSandbox, workdir: Path
) -> None:
    """The bill shows no more re-sent requests than were in flight, and no batch twice."""
    write_csv(workdir / "reviews.csv", plain_rows(ROWS))
    pool = {"max_in_flight": IN_FLIGHT // 2 if engine[0].startswith("--direct") else IN_FLIGHT}
    job = write_job(workdir, slow_sandbox.base_url("openai"), batching=_MODES[mode], pool=pool)
    is_time = {"real_time": lambda bill: bill["accepted"] > 100, "batch": lambda bill: bill["batch_count"] >= 3}[mode]
    killer = _kill_one_when(slow_sandbox, is_time)

    with pytest.raises(Exception) as caught:
        run_job(RunRequest(load_job(str(job), ()), engine))
    killer.join()
    assert judge(caught.value, running=True).exit_code == EXIT_INTERNAL
    assert "ledger" in judge(caught.value, running=True).sentence

    result = run_job(RunRequest(load_job(str(job), ()), engine))
    assert result.summary["rows"] == {"in": ROWS, "enriched": ROWS, "dead_lettered": 0, "pending": 0}
    bill = slow_sandbox.bill()
    assert bill["accepted"] + bill["batch_billed"] <= ROWS + (IN_FLIGHT if mode == "real_time" else 0)
    # Calls of a batch that went from process to process are numbered alike: see test_engines.
    assert [found for found in findings(workdir / "out") if not found.startswith("calls.call_index")] == []
