"""An engine by its name in `--engine`, as Beam's arguments."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines.fetch import find_engines


@dataclass(frozen=True, slots=True)
class EngineWords:
    """runner: what comes after `--runner=`, more arguments behind it; missing: why the engine can't be had, or ""."""

    runner: str
    missing: str = ""


def engine_words(name: str, folders: pytest.TempPathFactory) -> EngineWords:
    """Return how to ask Beam for an engine that needs no cluster.

    Args:
        name: the runner's, and behind a "+" where the job's Python runs, if not in the launching process.
        folders: where a worker's program is put.
    """
    runner, _, place = name.partition("+")
    if runner == "FnApiRunner":
        return EngineWords("FnApiRunner --direct_num_workers=2 --direct_running_mode=multi_threading")
    found = find_engines()
    if missing := found.missing_for_prism():
        return EngineWords("", missing)
    words = [f"PrismRunner --prism_location={found.prism}"]
    if place:
        program = shlex.quote(write_worker_program(folders.mktemp("worker")))
        words.append(f"--environment_type=PROCESS --environment_option=process_command={program}")
    return EngineWords(" ".join(words))


def write_worker_program(folder: Path) -> str:
    """Write a program that starts Beam's Python worker with this Python and these sources, as `rowbeam-worker` does."""
    root = Path(__file__).resolve().parents[2]
    program = folder / "rowbeam-worker"
    lines = [
        "#!/bin/sh",
        f"export PYTHONPATH={shlex.quote(str(root))}",
        f'exec {shlex.quote(sys.executable)} -m pipelines.engine_worker "$@"',
    ]
    program.write_text("\n".join(lines) + "\n", encoding="utf-8")
    program.chmod(0o755)
    return str(program)
