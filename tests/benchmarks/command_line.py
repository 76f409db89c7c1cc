"""How long `rowbeam --help` takes."""

import subprocess
import sys
import time

from tests.benchmarks.figures import Figure, Outcome, median
from tests.benchmarks.processes import ROOT

TARGET_S = 0.4


def measure(repeats: int) -> Outcome:
    """Time the command from its start to its end, in a process of its own each time."""
    found = Outcome("command line", {"repeats": repeats})
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pipelines.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
        found.samples.append({"help_s": time.perf_counter() - started})
    found.figures = [Figure("rowbeam --help", median(found.samples, "help_s"), "s", TARGET_S, "at most")]
    return found
