"""P6 under SIGKILL, and the longer chaos: a budget holds whatever dies, and the run is resumed."""

import time
from decimal import Decimal

import pytest

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.server import RunningSandbox
from tests.conformance.batch_jobs import KEY, KEYS, Workshop
from tests.conformance.budget_chaos import check_chaos, spent_usd
from tests.faults.forked_runs import ForkedRuns

_ROWS = 60


@pytest.fixture(scope="module")
def sandbox(_closed_world):
    """A provider that takes its time, so that a kill meets calls in flight."""
    with RunningSandbox(latency_s=0.1, batch=BatchTiming(validating_s=0.02, queue_s=0.02, duration_s=0.3)) as running:
        yield running


@pytest.fixture
def workshop(workdir, sandbox, monkeypatch):
    """A folder for a job, and keys."""
    for name in KEYS:
        monkeypatch.setenv(name, KEY)
    sandbox.set_faults()
    sandbox.reset()
    return Workshop(workdir, sandbox, "FnApiRunner")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["per_request", pytest.param("provider_batch_api", marks=pytest.mark.soak)])
def test_p6_a_killed_run_leaves_its_holds_and_is_resumed(workshop, tmp_path, mode):
    """What it had in flight stays charged, so its successor can't overspend; a higher budget ends the job."""
    workshop.write(
        "openai",
        _ROWS,
        batching={"mode": mode, "group_size": 10, "max_requests": 10},
        budget={"max_usd": "0.003"},
        pool={"max_in_flight": 4},
    )
    job, sandbox = workshop.folder / "job.yaml", workshop.sandbox
    with ForkedRuns(tmp_path / "runs.log") as forked:
        forked.start(job)
        deadline = time.monotonic() + 60
        while not _is_under_way(sandbox) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert forked.kill() == -9
    while sandbox.bill()["in_flight"]:
        time.sleep(0.02)
    before = spent_usd(sandbox)
    resumed = workshop.run()
    facts = resumed.summary["budget"]
    assert before <= spent_usd(sandbox) <= Decimal(facts["charged_usd"]) <= Decimal("0.003")
    done = workshop.run("budget.max_usd=1")
    assert done.summary["rows"]["enriched"] == _ROWS
    bill = sandbox.bill()
    assert bill["accepted"] + bill["batch_billed"] <= _ROWS + 4
    assert spent_usd(sandbox) <= Decimal(done.summary["budget"]["charged_usd"])


def _is_under_way(sandbox):
    bill = sandbox.bill()
    return bill["accepted"] > 12 or bill["batch_count"] > 1


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_p6_chaos_over_all_modes(workshop, seed):
    """Twenty seeds, five of each mode, with all faults on: never more on the bill than the budget."""
    check_chaos(workshop, seed, rows=40)
