"""An input that can't be read to its end, or an output that can't be written, never ends as if all were well."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import Output, run
from transforms.records.failure import FailureKind

ROOT = Path(__file__).resolve().parents[2]
# What a full disk is to a process: no file may grow beyond so many bytes, and writing more is an OSError.
_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
from pipelines.cli import main
sys.argv[0] = "rowbeam"
main()
"""

MakeJob = Callable[..., Path]


def test_a_cut_gzip_file_is_exit_1(make_job: MakeJob, output: Output, workdir: Path, runner: str) -> None:
    """However few dead letters it makes; the rows before the cut are enriched, and the file is named."""
    whole = gzip.compress(b"id,text\n" + b"".join(b"%d,%d\n" % (number, number**9) for number in range(600)))
    (workdir / "cut.csv.gz").write_bytes(whole[: len(whole) // 3])
    job = make_job(limits={"max_dead_letter_ratio": 1.0})
    result = run(job, "input.path=cut.csv.gz", runner=runner)
    assert (result.exit_code, result.summary["status"]) == (1, "incomplete_input")
    assert result.sentence.startswith("cut.csv.gz could not be read to the end")
    (letter,) = output.dead_letters(result.summary["run_id"])
    assert letter["kind"] == FailureKind.DAMAGED_FILE
    assert 0 < result.summary["rows"]["enriched"] < 600


@pytest.mark.usefixtures("sandbox")
def test_a_disk_that_fills_in_mid_run_is_one_line(make_job: MakeJob) -> None:
    """No traceback of Beam's comes before the sentence."""
    code = _LIMITED.format(size=30_000)
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(make_job())], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("rowbeam: ")]
    assert len(said) == 1
    assert "File too large" in said[0]


def test_an_output_that_is_a_file_is_exit_2(make_job: MakeJob, sandbox: RunningSandbox, workdir: Path) -> None:
    """Before anything is sent, with the path and the cure."""
    (workdir / "taken").write_text("x")
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "run", str(make_job()), "--set", "output=taken"], cwd=ROOT,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert str(workdir / "taken") in said
    assert "choose a folder" in said
    assert sandbox.bill()["accepted"] == 0
