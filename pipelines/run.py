"""One run of a job, from lease to manifest.

The order is what makes a crash harmless: the lease first; then crashed runs before us are sealed from the ledger;
then the run's own folder and manifest ("running"); then the pipeline, whose calls go to the ledger as they end; and
last the counts, checked against the files, the final manifest and `latest.json`.
"""

import gc
import shutil
import sys
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

from pipelines.budget import open_books
from pipelines.estimate_run import expect
from pipelines.job import LoadedJob
from pipelines.prepare import PreparedJob, list_in_flight, prepare
from pipelines.prometheus import prometheus_text
from pipelines.summary import EXIT_BROKEN, EXIT_DONE, RunResult, check_files, summarise
from transforms.providers.telemetry import open_telemetry
from transforms.records.errors import OutputBusyError
from transforms.storage.audit_rows import seal_run
from transforms.storage.batch_ledger import sweep_unsent
from transforms.storage.batch_sweep import sweep_prompts
from transforms.storage.lease import Lease
from transforms.storage.ledger import segments
from transforms.storage.objects import read_bytes, write_atomic
from transforms.storage.output_check import check_output
from transforms.storage.run_chain import head_link
from transforms.storage.runs import RunFolder, finish_run, list_runs, new_run_id, start_run, unfinished_runs

_LEASE_LOOK_S = 1.0


@dataclass(frozen=True)
class RunRequest:
    """What to run. beam_args: the arguments after `--`; dry_run: everything but the calls, nothing written.

    agree: asked, with the reason, whether to run though the budget can't be held. report: also write report.html.
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
    job = request.loaded.job
    run_id = new_run_id(datetime.now(UTC))
    if request.dry_run:
        return _dry_run(request, run_id, on_prepared)
    check_output(job.output)
    prepared = prepare(request.loaded, run_id)
    with Lease(str(Path(job.output) / "ledger"), run_id) as lease:
        # A chain of runs that can't be read is found now, and not when everything is paid.
        head_link(job.output, list_runs(job.output))
        seal_crashed_runs(job.output)
        tidy_batches(prepared)
        open_books(prepared, request.agree)
        in_flight = list_in_flight(prepared)
        prepared = replace(prepared, segments=segments(prepared.ledger, exclude_run=run_id), open_batches=in_flight)
        with _stop_when_lost(lease, run_id):
            return _run(request, prepared, on_prepared, lease)


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
        shutil.rmtree(RunFolder(output, crashed).asked, ignore_errors=True)
        structlog.get_logger("rowbeam").info("crashed_run_sealed", run_id=crashed, **counts)


def tidy_batches(job: PreparedJob) -> None:
    """Remove what killed runs left of batches: those never sent, and prompts that audit must not show.

    Only with the lease in hand, and before this run stages anything.
    """
    sweep_unsent(job.ledger, job.run_id, time.time())
    audit = job.job.audit
    if audit.payloads != "full" or audit.redact:
        sweep_prompts(job.ledger)


def _run(
    request: RunRequest, prepared: PreparedJob, on_prepared: Callable[[PreparedJob], None] | None, lease: Lease
) -> RunResult:
    # Beam takes a second to import: only commands that run a pipeline pay for it.
    from pipelines.runners import beam_options, runner_name
    from transforms._batch_board import board

    log = structlog.get_logger("rowbeam").bind(run_id=prepared.run_id)
    options = beam_options(request.beam_args)
    board.clear()
    estimate = _forecast(prepared)
    started = time.time()
    start_run(prepared.run, job=prepared.job.model_dump(mode="json", by_alias=True), job_sha256=prepared.job_sha256,
              runner=runner_name(options), started_at=datetime.fromtimestamp(started, UTC),
              estimate=estimate, model_entry=prepared.model_entry)  # fmt: skip
    log.info("run_started", job=prepared.job.name, files=len(prepared.files), segments=len(prepared.segments))
    if on_prepared:
        on_prepared(prepared)
    _run_pipeline(prepared, options)
    if lease.lost:
        raise OutputBusyError(
            f"this run lost its lease on {prepared.job.output}, so its files don't count; its answers are in the "
            f"ledger: run the job again when no other run is at work (rowbeam status says)"
        )
    totals = orjson.loads(read_bytes(prepared.run.totals))
    if not totals["rows"]["broken"]:
        check_files(prepared, totals)
    result = summarise(prepared, totals, time.time() - started, estimate)
    Path(prepared.run.totals).unlink()
    shutil.rmtree(prepared.run.asked, ignore_errors=True)
    manifest = finish_run(prepared.run, status=result.summary["status"], summary=result.summary)
    _afterwards(prepared, manifest, result, started, report=request.report)
    log.info("run_finished", status=result.summary["status"], **result.summary["rows"])
    return result


def _forecast(prepared: PreparedJob) -> dict[str, Any] | None:
    """Return what the run is expected to cost; None, and a warning, where that fails: no run depends on it."""
    try:
        return expect(prepared)
    except Exception as error:  # noqa: BLE001 - whatever it was, the run itself will meet it or can do without
        structlog.get_logger("rowbeam").warning("estimate_failed", run_id=prepared.run_id, error=repr(error))
        return None


def _afterwards(
    prepared: PreparedJob, manifest: dict[str, Any], result: RunResult, started: float, *, report: bool
) -> None:
    """Tell of a run that is done: figures for Prometheus, a collector, the report.

    Each on its own, and none can change how the run ended: what fails is a warning.
    """

    def leave_metrics() -> None:
        write_atomic(str(Path(prepared.run.path) / "metrics.prom"), prometheus_text(result.summary, manifest))

    def tell_collector() -> None:
        telemetry = open_telemetry(prepared.run_id, prepared.provider_address[1])
        if telemetry is not None:
            telemetry.run_ended(result.summary, round(started * 1e9), time.time_ns())
            telemetry.close()

    def draw_report() -> None:
        from pipelines.report import write_report

        result.summary["outputs"]["report"] = write_report(prepared.job.output, prepared.run_id)["report"]

    steps = [("metrics", leave_metrics), ("telemetry", tell_collector), *([("report", draw_report)] if report else [])]
    for name, step in steps:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - a picture that can't be drawn must not cost a run its exit code
            structlog.get_logger("rowbeam").warning(f"{name}_failed", run_id=prepared.run_id, error=repr(error))


def _run_pipeline(prepared: PreparedJob, options: Any) -> None:
    import apache_beam as beam

    from pipelines.enrich import EnrichRows
    from pipelines.runners import remembered_signatures

    with _calm_interpreter(), remembered_signatures(), beam.Pipeline(options=options) as pipeline:
        pipeline | "EnrichRows" >> EnrichRows(prepared)


@contextmanager
def _calm_interpreter() -> Iterator[None]:
    """Keep the interpreter from stalling the calls' event loop while the pipeline runs in this process.

    Measured with 500 calls of 0.5 s in flight: full collections over the graph's million objects and the default
    5 ms between thread switches cost an eighth of the throughput together, little each alone.
    """
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


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
        _run_pipeline(prepared, beam_options(request.beam_args))
        totals = orjson.loads(read_bytes(prepared.run.totals))
        result = summarise(prepared, totals, time.time() - started, None)
        if result.exit_code == EXIT_BROKEN:
            return result
        summary = result.summary | {"status": "dry_run", "outputs": dict.fromkeys(result.summary["outputs"])}
        return RunResult(summary, EXIT_DONE, "dry run: nothing was sent and nothing was kept")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
