"""A run that nobody waited for is closed afterwards, or taken up by the next: no row, no answer and no cent is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import left_runs
from pipelines.job import load_job
from pipelines.run import RunRequest
from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import Output, beam_args, broken_references, plain_rows, run
from transforms.records.errors import ConfigError
from transforms.storage.lease import Lease
from transforms.storage.runs import RunFolder, read_manifest

MakeJob = Callable[..., Path]


def leave(job: Path, runner: str) -> str:
    """Hand a job over; the engines of tests are waited for, so that its pipeline has ended."""
    return left_runs.hand_over(RunRequest(load_job(str(job)), beam_args(runner)))


def test_a_left_run_is_closed_as_its_launcher_would_have(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """Counts, files and references are those of a run that was waited for; not with another job, before it has ended, or twice."""
    job = make_job()
    run_id = leave(job, runner)
    folder = RunFolder(str(job.parent / "out"), run_id)
    assert read_manifest(folder)["status"] == "running"
    with pytest.raises(ConfigError, match=f"run {run_id} was begun with another version of this job"):
        left_runs.close_left(load_job(str(job), ["pool.max_in_flight=7"]))
    totals = Path(folder.totals)
    kept = totals.read_bytes()
    totals.unlink()
    with pytest.raises(ConfigError, match=f"run {run_id} has left no counts: its pipeline is at work still, or failed"):
        left_runs.close_left(load_job(str(job)))
    totals.write_bytes(kept)
    result = left_runs.close_left(load_job(str(job)))
    assert (result.exit_code, result.summary["run_id"]) == (0, run_id)
    assert result.summary["rows"] == {"in": 30, "enriched": 30, "dead_lettered": 0, "pending": 0}
    assert len(output.enriched(run_id)) == sandbox.bill()["accepted"] == 30
    assert read_manifest(folder)["status"] == result.summary["status"]
    assert broken_references(output) == {}
    with pytest.raises(ConfigError, match=r"no run of .* waits to be closed"):
        left_runs.close_left(load_job(str(job)))
    with pytest.raises(ConfigError, match="is closed already"):
        left_runs.close_left(load_job(str(job)), run_id)


@pytest.mark.soak
def test_a_left_run_that_is_not_closed_is_taken_up_by_the_next(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """Every answer is there already."""
    job = make_job()
    left = leave(job, runner)
    again = run(job, runner=runner)
    assert again.summary["calls"]["sent"] == 0
    assert sandbox.bill()["accepted"] == 30
    assert len(output.enriched(again.summary["run_id"])) == 30
    assert read_manifest(RunFolder(str(job.parent / "out"), left))["status"] == "crashed"


def test_the_launcher_and_the_closing_have_exit_codes(
    make_job: MakeJob, runner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """0, and 2 with one sentence where the job or the output does not allow it."""
    job = make_job(plain_rows(3))
    arguments = [f"--job={job}", *beam_args(runner)]
    assert left_runs.launch(arguments) == 0
    assert "is handed over; when its pipeline is done: python -m pipelines.left_runs --job=" in capsys.readouterr().err
    assert left_runs.main([f"--job={job}"]) == 0
    assert left_runs.main([f"--job={job}"]) == left_runs.main([]) == 2
    with Lease(str(job.parent / "out" / "ledger"), "20260101T000000-000000"):
        assert left_runs.launch(arguments) == 2
    assert capsys.readouterr().err.count("rowbeam: ") == 4
