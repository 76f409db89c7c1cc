"""One run of a job, from lease to manifest.

The order is what makes a crash harmless: the lease first; then crashed runs before us are sealed from the ledger;
then the run's own folder and manifest ("running"); then the pipeline, whose calls go to the ledger as they end; and
last the counts, checked against the files, the final manifest and `latest.json`.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import structlog

from pipelines.bigquery_close import fill_tables
from pipelines.budget import agree_on_gap, open_books
from pipelines.job import LoadedJob
from pipelines.prepare import PreparedJob, list_in_flight, prepare
from pipelines.run_margins import afterwards, forecast
from pipelines.summary import EXIT_BROKEN, EXIT_DONE, RunResult, check_files, summarise
from transforms.records.errors import InternalError, OutputBusyError
from transforms.storage.audit_rows import seal_run
from transforms.storage.batch_ledger import sweep_unsent
from transforms.storage.batch_sweep import sweep_prompts
from transforms.storage.bigquery_fill import open_tables
from transforms.storage.lease import Lease
from transforms.storage.ledger import segments
from transforms.storage.limit_shares import forget_shares
from transforms.storage.objects import read_bytes, remove, remove_tree
from transforms.storage.output_check import check_output
from transforms.storage.run_chain import head_link
from transforms.storage.runs import RunFolder, finish_run, list_runs, new_run_id, start_run, unfinished_runs

_LEASE_LOOK_S = 1.0


@dataclass(frozen=True)
class RunRequest:
    """What to run. beam_args: the arguments after `--`; dry_run: everything but the calls, nothing written.

    agree: asked whether to run though the budget can't be held. report: also write report.html.
    """

    loaded: LoadedJob
    beam_args: Sequence[str] = ()
    dry_run: bool = False
    agree: Callable[[str], bool] = lambda _gap: False
    report: bool = False


def run_job(request: RunRequest, on_prepared: Callable[[PreparedJob], None] | None = None) -> RunResult:
    """Run a job to its end and return its summary and exit code.

    Args:
        request: what to run.
        on_prepared: called once everything is checked and before the first call (for the display).

    Raises:
        ConfigError, InputError: the job is wrong; nothing was spent.
        OutputBusyError: another run holds the output.
        Exception: a worker failed in a way no stage foresaw; the ledger keeps what was answered, and the next run
            takes it up.
    """
    run_id = new_run_id(datetime.now(UTC))
    if request.dry_run:
        return _dry_run(request, run_id, on_prepared)
    check_output(request.loaded.job.output)
    prepared = prepare(request.loaded, run_id)
    agree_on_gap(prepared, request.agree)
    # Beam takes a second to import: only commands that run a pipeline pay for it.
    from pipelines.engine_checks import check_places
    from pipelines.runners import beam_options, is_one_process, runner_name

    options = beam_options(request.beam_args)
    for problem in check_places(prepared.job, options):
        structlog.get_logger("rowbeam").warning("out_of_reach", problem=problem)
    prepared = replace(prepared, shared_limits=not is_one_process(options))
    with _opened(prepared, runner_name(options), report=request.report) as run:
        if on_prepared:
            on_prepared(run.job)
        run_pipeline(run.job, options)
    return run.result


class OpenRun:
    """A run that holds its output; what `opened` gives.

    Attributes:
        job: what to give to `EnrichRows`.
    """

    def __init__(self, job: PreparedJob) -> None:
        self.job = job
        self._result: RunResult | None = None

    @property
    def result(self) -> RunResult:
        """Summary, exit code and sentence; there once the `with` block has ended."""
        if self._result is None:
            raise InternalError(f"run {self.job.run_id} has no result yet: look at it after the `with` block")
        return self._result

    def end(self, result: RunResult) -> None:
        """Take the result."""
        self._result = result


@contextmanager
def opened(
    loaded: LoadedJob,
    *,
    agree: Callable[[str], bool] = lambda _gap: False,
    runner: str = "not told",
    report: bool = False,
) -> Iterator[OpenRun]:
    """Open a run for a pipeline of one's own, and close it when the block ends; all that `run_job` does but the pipeline.

    The block builds a pipeline with `EnrichRows(run.job)`, runs it and waits for its end. Meanwhile no other run gets
    at the output, and the budget's books are open; after it the counts are checked and the manifest is written. Where
    the block raises, the run counts as killed: the next one takes up what was answered.

    Args:
        loaded: the job, as `load_job` gives it.
        agree: asked, with the reason, whether to run though the budget can't be held.
        runner: the Beam runner's name, for the manifest.
        report: also write report.html.

    Raises:
        ConfigError, InputError: the job is wrong, or the budget can't be held and nobody agrees; nothing was spent.
        OutputBusyError: another run holds the output, or took it over meanwhile.
        InternalError: the pipeline did not end inside the block, or its counts don't add up.
    """
    check_output(loaded.job.output)
    prepared = prepare(loaded, new_run_id(datetime.now(UTC)))
    agree_on_gap(prepared, agree)
    with _opened(prepared, runner, report=report) as run:
        yield run


@contextmanager
def _opened(prepared: PreparedJob, runner: str, *, report: bool) -> Iterator[OpenRun]:
    """Hold the output for a block. Whoever has to be asked something was asked before: nobody's thinking holds it up."""
    output, run_id = prepared.job.output, prepared.run_id
    with Lease(prepared.ledger, run_id) as lease:
        # A chain of runs that can't be read is found now, and not when everything is paid.
        head_link(output, list_runs(output))
        seal_crashed_runs(output)
        tidy_batches(prepared)
        open_books(prepared)
        open_tables(prepared.job.sinks, prepared.enriched_schema, prepared.job.answer.field)
        in_flight = list_in_flight(prepared)
        prepared = replace(prepared, segments=segments(prepared.ledger, exclude_run=run_id), open_batches=in_flight)
        with _stop_when_lost(lease, run_id):
            run, started, estimate = OpenRun(prepared), time.time(), forecast(prepared)
            _start(prepared, runner, started, estimate)
            yield run
            forget_shares(prepared.ledger, run_id)
            result = settle_run(prepared, lease, started, estimate)
            manifest = finish_run(prepared.run, status=result.summary["status"], summary=result.summary)
            result = fill_tables(prepared, result)
            afterwards(prepared, manifest, result, started, report=report)
            facts = {"run_id": run_id, "status": result.summary["status"], **result.summary["rows"]}
            structlog.get_logger("rowbeam").info("run_finished", **facts)
            run.end(result)


@contextmanager
def _stop_when_lost(lease: Lease, run_id: str) -> Iterator[None]:
    """Send no more calls from this process once another run has taken the output over."""
    done = threading.Event()

    def watch() -> None:
        from transforms import _worker

        while not done.wait(_LEASE_LOOK_S):
            worker = _worker.current()
            if lease.lost and worker is not None:
                structlog.get_logger("rowbeam").error("lease_lost", run_id=run_id)
                worker.pool.give_up("this run lost its lease on the output (another run may have taken it over)")
                return

    threading.Thread(target=watch, name="rowbeam-lease-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def seal_crashed_runs(output: str) -> None:
    """Write the audit tables of runs that ended without doing so. Only with the lease in hand."""
    for crashed in unfinished_runs(output):
        counts = seal_run(output, crashed)
        remove_tree(RunFolder(output, crashed).asked)
        structlog.get_logger("rowbeam").info("crashed_run_sealed", run_id=crashed, **counts)


def tidy_batches(job: PreparedJob) -> None:
    """Remove what killed runs left of batches: those never sent, and prompts that audit must not show.

    Only with the lease in hand, and before this run stages anything.
    """
    sweep_unsent(job.ledger, job.run_id, time.time())
    audit = job.job.audit
    if audit.payloads != "full" or audit.redact:
        sweep_prompts(job.ledger)


def _start(prepared: PreparedJob, runner: str, started: float, estimate: dict[str, Any] | None) -> None:
    from transforms._batch_board import board

    board.clear()
    start_run(prepared.run, job=prepared.job.model_dump(mode="json", by_alias=True), job_sha256=prepared.job_sha256,
              runner=runner, started_at=datetime.fromtimestamp(started, UTC),
              estimate=estimate, model_entry=prepared.model_entry)  # fmt: skip
    facts = {"job": prepared.job.name, "files": len(prepared.files), "segments": len(prepared.segments)}
    structlog.get_logger("rowbeam").info("run_started", run_id=prepared.run_id, **facts)


def settle_run(prepared: PreparedJob, lease: Lease, started: float, estimate: dict[str, Any] | None) -> RunResult:
    """Check what the pipeline left against its own counts, and judge the run; the lease is in hand, the pipeline has ended."""
    if lease.lost:
        raise OutputBusyError(
            f"this run lost its lease on {prepared.job.output}, so its files don't count; its answers are in the "
            f"ledger: run the job again when no other run is at work (rowbeam status says)"
        )
    try:
        totals = orjson.loads(read_bytes(prepared.run.totals))
    except FileNotFoundError as error:
        raise InternalError(
            f"run {prepared.run_id}: no pipeline with EnrichRows(run.job) ended inside the `with opened(...)` block; run it "
            "there and wait for its end, as `with beam.Pipeline(...)` does"
        ) from error
    if not totals["rows"]["broken"]:
        check_files(prepared, totals)
    result = summarise(prepared, totals, time.time() - started, estimate)
    remove(prepared.run.totals)
    remove_tree(prepared.run.asked)
    return result


def run_pipeline(prepared: PreparedJob, options: Any) -> None:
    """Run the job's pipeline to its end, with these Beam options; raises what a stage or the runner raises."""
    import apache_beam as beam

    from pipelines.enrich import EnrichRows
    from pipelines.runners import calm_interpreter, remembered_signatures

    with calm_interpreter(), remembered_signatures(), beam.Pipeline(options=options) as pipeline:
        pipeline | "EnrichRows" >> EnrichRows(prepared)


def _dry_run(request: RunRequest, run_id: str, on_prepared: Callable[[PreparedJob], None] | None) -> RunResult:
    """Do everything but the calls, in a folder that is thrown away; requests that would be sent count as pending."""
    from pipelines.runners import beam_options

    scratch = tempfile.mkdtemp(prefix="rowbeam-dry-run-")
    try:
        prepared = prepare(request.loaded, run_id)
        in_flight = list_in_flight(prepared)
        prepared = replace(prepared, run=RunFolder(scratch, run_id), open_batches=in_flight, dry_run=True)
        Path(prepared.run.path).mkdir(parents=True)
        if on_prepared:
            on_prepared(prepared)
        started = time.time()
        run_pipeline(prepared, beam_options(request.beam_args))
        totals = orjson.loads(read_bytes(prepared.run.totals))
        result = summarise(prepared, totals, time.time() - started, None)
        if result.exit_code == EXIT_BROKEN:
            return result
        kept = {"status": "dry_run", "outputs": dict.fromkeys(result.summary["outputs"])}
        return RunResult(result.summary | kept, EXIT_DONE, "dry run: nothing was sent and nothing was kept")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
