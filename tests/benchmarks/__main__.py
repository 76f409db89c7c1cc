"""Measure the numbers of the design: `python -m tests.benchmarks [NAME ...] [--rows N] [--repeats K] [--quick]`.

Each thing is measured in a process of its own, rivals beside us in the same run, so that the ratios hold on any
machine; absolute figures are of this one, at its load. Prints a table and writes
`bench-results/<time>.json` and `bench-results/latest.json`, and for the batch path `<time>-memory.png` beside them.
"""

import argparse
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import orjson

from tests.benchmarks import batch_path, command_line, cpu_per_row, engines, explain_one, pooled, rival
from tests.benchmarks.figures import Outcome
from tests.benchmarks.processes import ROOT
from tests.benchmarks.profiling import can_profile
from tests.benchmarks.table import print_outcomes

_PACKAGES = ("apache-beam", "aiohttp", "pyarrow", "orjson")


@dataclass(frozen=True)
class Asked:
    """What the command line asked for; None: the benchmark's own number."""

    rows: int | None
    repeats: int | None
    rival_rows: int | None
    quick: bool
    profile: str | None
    plot: str

    def row_count(self, full: int, quick: int) -> int:
        """Return the number of rows to run."""
        return self.rows or (quick if self.quick else full)

    def repeat_count(self, full: int) -> int:
        """Return how often to run."""
        return self.repeats or (1 if self.quick else full)


BENCHMARKS: dict[str, Callable[[Asked], Outcome]] = {
    "pooled-500": lambda asked: pooled.measure(asked.row_count(100_000, 1_500), 500, asked.repeat_count(1), 0.85),
    "pooled-2000": lambda asked: pooled.measure(asked.row_count(150_000, 4_000), 2_000, asked.repeat_count(1), 0.50),
    "cpu": lambda asked: cpu_per_row.measure(
        asked.row_count(40_000, 2_000), 500 if asked.quick else 2_000, asked.repeat_count(3), asked.profile
    ),
    "rival": lambda asked: rival.measure(
        asked.row_count(1_000, 200), asked.rival_rows or (10 if asked.quick else 100), asked.repeat_count(3)
    ),
    "rerun": lambda asked: cpu_per_row.measure_rerun(asked.row_count(20_000, 1_000)),
    "batch-path": lambda asked: batch_path.measure(asked.row_count(1_000_000, 10_000), asked.plot, asked.profile),
    "explain": lambda asked: explain_one.measure(asked.row_count(1_000_000, 20_000), asked.repeat_count(5)),
    "engines": lambda asked: engines.measure(asked.row_count(100_000, 500)),
    "help": lambda asked: command_line.measure(asked.repeat_count(5)),
}

#: What --quick runs: each module once, in under a minute on two idle cores.
QUICK = ("pooled-500", "cpu", "rival", "rerun", "batch-path", "explain", "help")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks named, or all; returns 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure Rowbeam's numbers.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(BENCHMARKS)} (default: all)"
    )
    parser.add_argument("--rows", type=int, help="rows of each run (default: each benchmark's own number)")
    parser.add_argument("--repeats", type=int, help="how often to run each; figures are medians")
    parser.add_argument("--rival-rows", type=int, help="rows RunInference gets; its time is scaled up (default: 100)")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that the benchmarks work")
    parser.add_argument(
        "--profile", action="store_true", help="with cpu and batch-path: also write a profile (needs yappi)"
    )
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}; there are: {', '.join(BENCHMARKS)}")
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = ROOT / "bench-results"
    folder.mkdir(exist_ok=True)
    asked = Asked(
        options.rows,
        options.repeats,
        options.rival_rows,
        options.quick,
        _profile(folder, stamp, wanted=options.profile),
        str(folder / f"{stamp}-memory.png"),
    )
    started = time.perf_counter()
    outcomes = [_run(name, asked) for name in options.names or (QUICK if asked.quick else BENCHMARKS)]
    print_outcomes(outcomes, _machine() + (", quick: too small to judge by" if asked.quick else ""))
    _write(folder, stamp, outcomes, time.perf_counter() - started, quick=asked.quick)
    return int(not asked.quick and any(figure.verdict == "missed" for one in outcomes for figure in one.figures))


def _run(name: str, asked: Asked) -> Outcome:
    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    before, started = os.getloadavg()[0], time.perf_counter()
    outcome = BENCHMARKS[name](asked)
    outcome.settings |= {"name": name, "load_before": round(before, 2), "load_after": round(os.getloadavg()[0], 2)}
    outcome.settings["took_s"] = round(time.perf_counter() - started, 1)
    return outcome


def _profile(folder: Path, stamp: str, *, wanted: bool) -> str | None:
    if not wanted:
        return None
    if not can_profile():
        print("no profile: yappi is not installed (pip install yappi)", file=sys.stderr)
        return None
    path = str(folder / f"{stamp}-profile.txt")
    print(f"the profile will be in {path}", file=sys.stderr)
    return path


def _machine() -> str:
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def _write(folder: Path, stamp: str, outcomes: list[Outcome], took_s: float, *, quick: bool) -> None:
    facts = {
        "measured_at": stamp,
        "quick": quick,
        "took_s": round(took_s, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "packages": {name: version(name) for name in _PACKAGES},
        "benchmarks": [outcome.to_json() for outcome in outcomes],
    }
    path = folder / f"{stamp}.json"
    path.write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    shutil.copyfile(path, folder / "latest.json")
    plot = folder / f"{stamp}-memory.png"
    if plot.exists():
        shutil.copyfile(plot, folder / "latest-memory.png")
    print(f"written: {path.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
