"""What surrounds a run and can't change how it ends: what it is expected to cost, and what is told of it afterwards."""

import time
from typing import Any

import structlog

from pipelines.estimate_run import expect
from pipelines.prepare import PreparedJob
from pipelines.prometheus import prometheus_text
from pipelines.summary import RunResult
from transforms.providers.telemetry import open_telemetry
from transforms.storage.objects import join, write_atomic


def forecast(prepared: PreparedJob) -> dict[str, Any] | None:
    """Return what the run is expected to cost; None, and a warning, where that fails: no run depends on it."""
    try:
        return expect(prepared)
    except Exception as error:  # noqa: BLE001 - whatever it was, the run itself will meet it or can do without
        structlog.get_logger("rowbeam").warning("estimate_failed", run_id=prepared.run_id, error=repr(error))
        return None


def afterwards(
    prepared: PreparedJob, manifest: dict[str, Any], result: RunResult, started: float, *, report: bool
) -> None:
    """Tell of a run that is done: figures for Prometheus, a collector, the report.

    Each on its own, and none can change how the run ended: what fails is a warning.

    Args:
        prepared: the job.
        manifest: the run's final one.
        result: how it ended; the report's path is added to its summary.
        started: Unix seconds.
        report: write the report.
    """

    def leave_metrics() -> None:
        write_atomic(join(prepared.run.path, "metrics.prom"), prometheus_text(result.summary, manifest))

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
