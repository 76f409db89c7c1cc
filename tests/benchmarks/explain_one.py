"""How long `rowbeam explain` takes to tell of one row among very many calls, as a whole process."""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from tests.benchmarks.explain_case import row_name, write_case
from tests.benchmarks.figures import Figure, Outcome
from tests.benchmarks.processes import ROOT

TARGET_S = 2.0
_NOT_THERE = "r-none"


def measure(rows: int, repeats: int) -> Outcome:
    """Write an output of as many rows and calls, then explain some of them, each in a process of its own.

    Cold: the output's files are dropped from the system's cache before.
    """
    found = Outcome("explain", {"rows": rows, "repeats": repeats})
    draw = random.Random(3)
    with tempfile.TemporaryDirectory(prefix="rowbeam-explain-") as folder:
        output = Path(folder)
        started = time.perf_counter()
        write_case(output, rows)
        found.settings |= {"write_s": round(time.perf_counter() - started, 1), "bytes": _size(output)}
        for _ in range(repeats):
            row_id = row_name(draw.randrange(rows))
            sample = {"cold_s": _timed(output, row_id, cold=True), "warm_s": _timed(output, row_id, cold=False)}
            found.samples.append(sample | {"page_s": _timed(output, row_id, cold=False, page=True)})
        found.samples.append({"unknown_s": _timed(output, _NOT_THERE, cold=False)})
    found.figures = [
        Figure(f"explain one row among {rows:,} calls, {name}", _median(found, key), "s", target, "at most", note)
        for name, key, target, note in (
            ("cold", "cold_s", TARGET_S, "files dropped from the cache"),
            ("warm", "warm_s", TARGET_S, "whole process"),
            ("as a page", "page_s", TARGET_S, "--html, warm"),
            ("a row that is not there", "unknown_s", None, "looks for near ones among all"),
        )
    ]
    return found


def _median(found: Outcome, key: str) -> float:
    return float(statistics.median(sample[key] for sample in found.samples if key in sample))


def _timed(output: Path, row_id: str, *, cold: bool, page: bool = False) -> float:
    if cold:
        _forget(output)
    command = [sys.executable, "-m", "pipelines.cli", "explain", str(output), row_id]
    command += ["--html", str(output / "page.html")] if page else ["--json"]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    took = time.perf_counter() - started
    if row_id == _NOT_THERE:
        assert done.returncode == 2
    else:
        assert done.returncode == 0, done.stderr.decode()
        assert page or orjson.loads(done.stdout)["row_id"] == row_id
    return took


def _forget(output: Path) -> None:
    """Ask the system to drop the output's files from its cache; dirty pages are written first."""
    for path in output.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _size(output: Path) -> int:
    return sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
