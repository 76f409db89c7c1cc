"""CPU per row with instant answers, and what a second run of the finished job costs.

The marginal figure takes the CPU of two sizes and divides their difference by the difference in rows, so that what
is paid once (importing Beam, building the pipeline) is left out; the plain quotient leaves it in.
"""

import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.case import write_case
from tests.benchmarks.figures import Figure, Outcome, median
from tests.benchmarks.processes import run_child

TARGET_MS = 0.6
RERUN_TARGET = 1 / 3
_NOWHERE = "http://127.0.0.1:9"


def measure(rows: int, base_rows: int, repeats: int, profile: str | None = None) -> Outcome:
    """Run both sizes `repeats` times.

    Args:
        rows: rows of the large run above those of the small one.
        base_rows: rows of the small run.
        repeats: pairs of runs; figures are medians.
        profile: a file for the profile of one more run; its time is in no figure.
    """
    found = Outcome("cpu per row", {"rows": rows + base_rows, "base_rows": base_rows, "repeats": repeats})
    pairs = [(_instant(base_rows), _instant(base_rows + rows)) for _ in range(repeats)]
    small, large = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found.samples = [*small, *large]
    marginal = [{"ms": (two["cpu_s"] - one["cpu_s"]) * 1000 / rows} for one, two in pairs]
    found.figures = [
        Figure(
            "CPU per row, answers instant",
            median(marginal, "ms"),
            "ms",
            TARGET_MS,
            "at most",
            "marginal: user + system",
        ),
        Figure("the same, with what is paid once", median(large, "cpu_s") * 1000 / (rows + base_rows), "ms"),
        Figure("rows per second of the large run", median(large, "rows_per_s"), "rows/s"),
        Figure("peak memory of the large run", median(large, "peak_mb"), "MB"),
    ]
    if profile:
        _instant(rows + base_rows, profile)
    return found


def measure_rerun(rows: int) -> Outcome:
    """Run a job to its end with instant answers, and once more."""
    found = Outcome("rerun", {"rows": rows})
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-") as folder:
        job = str(write_case(Path(folder), rows, _NOWHERE))
        first = run_child("pipeline_run", {"job": job, "instant": True})
        again = run_child("pipeline_run", {"job": job, "instant": True})
    found.samples = [{"side": "first", **first}, {"side": "again", **again}]
    same = "enriched" if again["rows"] == first["rows"] else f"rows differ: {again['rows']}"
    found.figures = [
        Figure("rerun of a finished job: requests", again["calls"]["sent"], "requests", 0, "at most", same),
        Figure("rerun / call phase of first run", again["run_s"] / first["phase_s"], "ratio", RERUN_TARGET, "at most"),
        Figure("rerun / whole first run", again["run_s"] / first["run_s"], "ratio"),
        Figure("rerun", again["run_s"], "s"),
        Figure("first run", first["run_s"], "s"),
    ]
    return found


def _instant(rows: int, profile: str | None = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-") as folder:
        job = write_case(Path(folder), rows, _NOWHERE)
        result = run_child("pipeline_run", {"job": str(job), "instant": True, "profile": profile})
    if result["rows"]["enriched"] != rows:
        raise RuntimeError(f"expected {rows} rows enriched, found {result['rows']}")
    return result
