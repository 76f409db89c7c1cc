"""Rowbeam beside Beam's own RunInference with its stock Anthropic handler, each with its defaults.

The handler makes one call at a time, so it is run on two small numbers of rows and its time for all rows is
reckoned: the larger run, plus the remaining rows at the pace between the two. What is paid once is counted once.
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
_SMALL_SHARE = 5


def measure(rows: int, rival_rows: int, repeats: int) -> Outcome:
    """Measure both.

    Args:
        rows: rows of Rowbeam's run, and of the reckoned rival's.
        rival_rows: rows of the rival's larger run; all rows take it a fifth of a second each.
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
    small_rows = max(1, rival_rows // _SMALL_SHARE)
    small = run_child("rival_run", {"rows": small_rows}, environment)
    if "missing" in small:
        return small
    large = run_child("rival_run", {"rows": rival_rows}, environment)
    pace_s = (large["run_s"] - small["run_s"]) / max(1, rival_rows - small_rows)
    return {
        "small_rows": small_rows,
        "small_s": small["run_s"],
        "large_rows": rival_rows,
        "large_s": large["run_s"],
        "all_rows_s": large["run_s"] + pace_s * (rows - rival_rows),
    }
