"""Pooled calls: Rowbeam's whole pipeline with audit beside a bare aiohttp loop, turn by turn against one server."""

import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.case import write_case
from tests.benchmarks.figures import Figure, Outcome, median
from tests.benchmarks.processes import echo_server, run_child

LATENCY_S = 0.5
_INCLUDED = "run_job: checks, Beam's import, pipeline, ledger, Parquet, audit, manifest"


def measure(rows: int, in_flight: int, repeats: int, target: float) -> Outcome:
    """Alternate bare loop and pipeline over the same number of calls.

    Args:
        rows: calls of each run.
        in_flight: calls at a time.
        repeats: pairs of runs; figures are medians.
        target: the pipeline's rows per second over the bare loop's calls per second.
    """
    found = Outcome("pooled calls", {"rows": rows, "in_flight": in_flight, "latency_s": LATENCY_S, "repeats": repeats})
    bare, piped = [], []
    with echo_server(LATENCY_S) as base_url:
        for _ in range(repeats):
            bare.append(run_child("bare_loop", {"base_url": base_url, "calls": rows, "in_flight": in_flight}))
            piped.append(_pipeline(base_url, rows, in_flight))
    found.samples = [{"side": "bare", **one} for one in bare] + [{"side": "pipeline", **one} for one in piped]
    found.figures = _figures(found, bare, piped, f"{in_flight:,} in flight", target)
    return found


def _pipeline(base_url: str, rows: int, in_flight: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-") as folder:
        job = write_case(Path(folder), rows, base_url, pool={"max_in_flight": in_flight})
        result = run_child("pipeline_run", {"job": str(job)})
    if result["rows"]["enriched"] != rows or result["calls"]["sent"] != rows:
        raise RuntimeError(f"expected {rows} rows enriched by as many calls, found {result['rows']}, {result['calls']}")
    return result


def _figures(
    found: Outcome, bare: list[dict[str, Any]], piped: list[dict[str, Any]], what: str, target: float
) -> list[Figure]:
    rows = found.settings["rows"]
    bare_rate, run_rate = median(bare, "calls_per_s"), median(piped, "rows_per_s")
    process_ratio = median(bare, "process_s") / median(piped, "process_s")
    phase_rate = median(piped, "phase_calls_per_s")
    before_s = median(piped, "to_first_call_s")
    after_s = median(piped, "run_s") - median(piped, "phase_s") - before_s
    return [
        Figure(f"{what}: pipeline / bare loop", run_rate / bare_rate, "ratio", target, note=_INCLUDED),
        Figure(f"{what}: the same, whole processes", process_ratio, "ratio", note="from Python's start to its end"),
        Figure(f"{what}: call phase / bare loop", phase_rate / bare_rate, "ratio", note="first call to last answer"),
        Figure(f"{what}: bare loop", bare_rate, "calls/s", note=f"ceiling {_ceiling(found, rows):,.0f}/s"),
        Figure(f"{what}: pipeline", run_rate, "rows/s", note=_INCLUDED),
        Figure(f"{what}: call phase", phase_rate, "calls/s", note="first call to last answer"),
        Figure(f"{what}: before first call", before_s, "s"),
        Figure(f"{what}: after last answer", after_s, "s"),
        Figure(f"{what}: pipeline CPU per row", median(piped, "cpu_s") * 1000 / rows, "ms"),
        Figure(f"{what}: bare loop CPU per call", median(bare, "cpu_ms_per_call"), "ms"),
        Figure(f"{what}: pipeline peak memory", median(piped, "peak_mb"), "MB"),
    ]


def _ceiling(found: Outcome, rows: int) -> float:
    rounds = -(-rows // found.settings["in_flight"])
    return float(rows / (rounds * LATENCY_S))
