"""Rowbeam beside Beam's own RunInference with its stock Anthropic handler, each with its defaults.

The handler makes one call at a time, so it is run on a part of the rows and its time for all of them is reckoned: the
time it spends asking grows with the rows, what comes before and after is counted once.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.case import write_case
from tests.benchmarks.figures import Figure, Outcome, median
from tests.benchmarks.processes import echo_server, run_child

LATENCY_S = 0.2
TARGET = 50.0


def measure(rows: int, rival_rows: int, repeats: int) -> Outcome:
    """Measure both.

    Args:
        rows: rows of Rowbeam's run, and of the reckoned rival's.
        rival_rows: rows of the rival's run; each takes it a fifth of a second.
        repeats: runs of Rowbeam; the rival is run once.
    """
    found = Outcome("rival", {"rows": rows, "rival_rows": rival_rows, "latency_s": LATENCY_S, "repeats": repeats})
    with echo_server(LATENCY_S) as base_url:
        rival = _rival(base_url, rows, min(rows, rival_rows))
        ours = [_rowbeam(base_url, rows) for _ in range(repeats)]
    found.samples = [{"side": "rival", **rival}] + [{"side": "rowbeam", **one} for one in ours]
    ours_s = median(ours, "run_s")
    rival_s = rival.get("all_rows_s")
    note = f"reckoned from {rival_rows} rows" if rival_s is not None else f"not installed: {rival['missing']}"
    found.figures = [
        Figure("times faster than RunInference", rival_s / ours_s if rival_s else None, "times", TARGET, note=note),
        Figure(f"RunInference, {rows:,} rows of {LATENCY_S} s", rival_s, "s", note=note),
        Figure(f"Rowbeam, {rows:,} rows of {LATENCY_S} s", ours_s, "s", note="run_job, with audit, ledger and Parquet"),
    ]
    return found


def _rowbeam(base_url: str, rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-") as folder:
        result = run_child("pipeline_run", {"job": str(write_case(Path(folder), rows, base_url, "anthropic"))})
    if result["rows"]["enriched"] != rows:
        raise RuntimeError(f"expected {rows} rows enriched, found {result['rows']}")
    return result


def _rival(base_url: str, rows: int, rival_rows: int) -> dict[str, Any]:
    environment = {**os.environ, "ANTHROPIC_BASE_URL": base_url}
    found = run_child("rival_run", {"rows": rival_rows}, environment)
    if "missing" in found:
        return found
    return {**found, "all_rows_s": found["run_s"] + found["asking_s"] / rival_rows * (rows - rival_rows)}
