"""The batch path with a provider that has answered already: staging and collecting, each in a process of its own.

Three sizes, each ten times the one before. Memory is flat where a run ten times as long needs no more: what a stage
holds is the ids of one batch, so the figure compares runs of full batches, what the process held before taken off.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.batch_case import BATCH_REQUESTS
from tests.benchmarks.figures import Figure, Outcome
from tests.benchmarks.memory_plot import draw
from tests.benchmarks.processes import file_server, run_child

TARGET_ROWS_PER_S = 20_000.0
WHOLE_TARGET, FLAT_TARGET = 1.5, 1.25
_SIDES = {"stage": "staging", "collect": "collecting"}
_INCLUDED = {
    "stage": "request, members and asked files, durable; requests read from a file",
    "collect": "download, reading, ledger with its syncs, answers",
}


def measure(rows: int, plot: str, profile: str | None = None) -> Outcome:
    """Stage and collect a hundredth, a tenth and all of `rows`.

    Args:
        rows: of the largest run.
        plot: a PNG to draw memory over rows in.
        profile: a file for the profiles of one more run of a tenth; its time is in no figure.
    """
    sizes = [max(1, rows // 100), max(1, rows // 10), rows]
    found = Outcome("batch path", {"sizes": sizes, "batch_requests": BATCH_REQUESTS, "plot": Path(plot).name})
    found.samples = [sample for size in sizes for sample in _run(size)]
    draw(found.samples, plot)
    for side in _SIDES:
        found.figures += _figures(side, [sample for sample in found.samples if sample["side"] == side])
    if profile:
        _run(sizes[1], profile)
    return found


def _run(rows: int, profile: str | None = None) -> list[dict[str, Any]]:
    """Stage and collect `rows` rows; each child begins with nothing but files."""
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-") as name:
        folder = Path(name)
        run_child("batch_case", {"folder": name, "rows": rows})
        staged = run_child("batch_stage_run", {"folder": name, "profile": _beside(profile, "stage")})
        (folder / "packets").unlink()
        run_child("batch_case", {"folder": name})
        with file_server(folder / "files") as base_url:
            arguments = {"folder": name, "base_url": base_url, "profile": _beside(profile, "collect")}
            collected = run_child("batch_collect_run", arguments)
    if not staged["rows"] == collected["rows"] == rows:
        raise RuntimeError(f"expected {rows} rows, found {staged['rows']} staged and {collected['rows']} answered")
    return [{"side": "stage", **staged}, {"side": "collect", **collected}]


def _figures(side: str, samples: Sequence[dict[str, Any]]) -> list[Figure]:
    word, (small, middle, large) = _SIDES[side], samples
    rows = large["rows"]
    held_note = f"whole process; of {middle['rows']:,} rows {middle['peak_mb']:.0f} MB, of {small['rows']:,} {small['peak_mb']:.0f} MB"
    return [
        Figure(f"{word} {rows:,} rows", rows / large["run_s"], "rows/s", TARGET_ROWS_PER_S, note=_INCLUDED[side]),
        *(Figure(f"{word} {one['rows']:,} rows", one["rows"] / one["run_s"], "rows/s") for one in samples[:-1]),
        Figure(f"{word}: rows per second of CPU", rows / large["cpu_s"], "rows/s", note="user + system, all threads"),
        Figure(f"{word}: CPU per row", large["cpu_s"] * 1e6 / rows, "us"),
        Figure(f"{word}: peak memory, {rows:,} rows", large["peak_mb"], "MB", note=held_note),
        Figure(
            f"{word}: peak of {rows:,} / of {small['rows']:,} rows",
            large["peak_mb"] / small["peak_mb"],
            "ratio",
            WHOLE_TARGET,
            "at most",
            "whole process",
        ),
        Figure(
            f"{word}: the same above what it began with, / of {middle['rows']:,}",
            _above(large) / _above(middle),
            "ratio",
            FLAT_TARGET if middle["rows"] >= BATCH_REQUESTS else None,
            "at most",
            f"{_above(large):.0f} MB / {_above(middle):.0f} MB: the ids of one batch, {BATCH_REQUESTS:,}",
        ),
    ]


def _above(sample: dict[str, Any]) -> float:
    return float(sample["peak_mb"] - sample["base_mb"])


def _beside(profile: str | None, side: str) -> str | None:
    return None if profile is None else str(Path(profile).with_suffix(f".{side}.txt"))
