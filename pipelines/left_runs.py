"""Runs whose launcher does not see their end: begun here and left to their engine, and closed later by another process.

A Flex Template's launcher must leave, because Dataflow starts the job only then; a launcher that waits may die. Either
way the run's manifest says "running", nobody holds the lease, and the workers go on, since no other run has taken the
output. When the job is done its counts are in the bucket (`totals`), and `close_left` checks them and closes the run as
its launcher would have. Who runs the job again instead seals the left run as a crashed one and takes up its answers.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import structlog

from pipelines.bigquery_close import fill_tables
from pipelines.job import LoadedJob, load_job
from pipelines.mishaps import judge
from pipelines.prepare import prepare
from pipelines.run import RunRequest, opened, run_pipeline, settle_run
from pipelines.run_margins import afterwards
from pipelines.summary import EXIT_DONE, RunResult
from transforms.records.errors import ConfigError
from transforms.storage.lease import Lease
from transforms.storage.limit_shares import forget_shares
from transforms.storage.objects import exists
from transforms.storage.runs import RUNNING, RunFolder, finish_run, read_manifest, unfinished_runs


class _LeftError(Exception):
    """Ends the launcher's part of a run without closing it."""


def hand_over(request: RunRequest) -> str:
    """Begin a run, give its pipeline to the engine and leave; return the run's id.

    With an engine that is waited for (every one but Dataflow with --template_location) the pipeline has ended then.

    Args:
        request: what to run; `dry_run` and `report` have no meaning here.

    Raises:
        ConfigError, InputError, OutputBusyError: as `run_job`; nothing was spent.
    """
    # Beam takes a second to import, and the job is checked first.
    from pipelines.engine_checks import check_places
    from pipelines.runners import beam_options, runner_name

    options = beam_options(request.beam_args)
    for problem in check_places(request.loaded.job, options, waits=False):
        structlog.get_logger("rowbeam").warning("out_of_reach", problem=problem)
    run_id = ""
    with suppress(_LeftError), opened(request.loaded, agree=request.agree, runner=runner_name(options)) as run:
        run_id = run.job.run_id
        run_pipeline(run.job, options)
        raise _LeftError
    return run_id


def close_left(loaded: LoadedJob, run_id: str | None = None) -> RunResult:
    """Check what a left run's pipeline has written, and close the run.

    Args:
        loaded: the job, as it was when the run began.
        run_id: which run; None: the newest that is not closed.

    Returns:
        Summary, exit code and sentence, as of `run_job`; the duration is that from launch to now.

    Raises:
        ConfigError: no run is left, its pipeline has not ended, or the job is another one by now.
        OutputBusyError: a run is at work in this output.
        InternalError: the run's files and counts don't agree.
    """
    output = loaded.job.output
    left = run_id or next(reversed(unfinished_runs(output)), None)
    if left is None:
        raise ConfigError(f"no run of {output} waits to be closed")
    folder = RunFolder(output, left)
    began = read_manifest(folder)
    if began["status"] != RUNNING:
        raise ConfigError(f"run {left} is closed already (status {began['status']})")
    if began["job_sha256"] != loaded.sha256:
        raise ConfigError(f"run {left} was begun with another version of this job; give the same file and overrides")
    if not exists(folder.totals):
        raise ConfigError(
            f"run {left} has left no counts: its pipeline is at work still, or failed. Close it when it is done; if it "
            "failed, run the job again, which takes up the answers so far"
        )
    prepared = prepare(loaded, left)
    with Lease(prepared.ledger, left) as lease:
        started = datetime.fromisoformat(began["started_at"]).timestamp()
        forget_shares(prepared.ledger, left)
        result = settle_run(prepared, lease, started, began["estimate"])
        manifest = finish_run(prepared.run, status=result.summary["status"], summary=result.summary)
        result = fill_tables(prepared, result)
        afterwards(prepared, manifest, result, started, report=True)
    return result


def launch(argv: Sequence[str]) -> int:
    """Hand over the job that a launcher's arguments name; say on standard error how it went, and return the exit code."""
    from pipelines.options import EnrichOptions

    options = EnrichOptions(list(argv))
    try:
        run_id = hand_over(RunRequest(load_job(options.job_file(), options.set), argv, agree=lambda _gap: options.yes))
    except Exception as error:  # noqa: BLE001 - whatever it was, a scheduler gets its sentence and its exit code
        mishap = judge(error)
        _say(mishap.sentence)
        return mishap.exit_code
    _say(f"run {run_id} is handed over; when its pipeline is done: python -m pipelines.left_runs --job={options.job}")
    return EXIT_DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Close the newest left run of a job: `python -m pipelines.left_runs --job=gs://...`; returns the run's exit code."""
    from pipelines.options import EnrichOptions

    options = EnrichOptions(list(sys.argv[1:] if argv is None else argv))
    try:
        result = close_left(load_job(options.job_file(), options.set))
    except Exception as error:  # noqa: BLE001 - as above
        mishap = judge(error)
        _say(mishap.sentence)
        return mishap.exit_code
    _say(result.sentence or f"done: {result.summary['outputs']['enriched']}")
    return result.exit_code


def _say(sentence: str) -> None:
    print(f"rowbeam: {sentence}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
