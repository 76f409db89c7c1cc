"""Verify takes no symbolic link for a file: what it leads to can change without a trace in the output."""

from pathlib import Path

import pytest

from pipelines.verify import verify_output
from tests.unit.verify_outputs import RUN_1, RUN_2, make_output


def _found(output: Path) -> dict[str, str]:
    checks = verify_output(str(output))["checks"]
    return {check["name"]: "; ".join(check["examples"]) for check in checks if check["count"]}


def _move_and_link(path: Path, elsewhere: Path) -> None:
    path.rename(elsewhere)
    path.symlink_to(elsewhere, target_is_directory=elsewhere.is_dir())


@pytest.mark.parametrize(
    ("pattern", "check", "named"),
    [
        pytest.param(f"runs/{RUN_1}/enriched/*", "files", "part-00000.parquet is a symbolic link", id="rows"),
        pytest.param(f"runs/{RUN_1}/summary.json", "files", "summary.json is a symbolic link", id="summary"),
        pytest.param(f"runs/{RUN_1}/audit/calls", "files", "lies behind one", id="a folder"),
        pytest.param(f"ledger/answers/{RUN_1}*", "files", "is a symbolic link", id="a segment of the ledger"),
        pytest.param(f"runs/{RUN_1}/manifest.json", "chain", "manifest.json is a symbolic link", id="a manifest"),
        pytest.param(
            f"runs/{RUN_2}/manifest.json", "latest", "manifest.json is a symbolic link", id="the last manifest"
        ),
    ],
)
def test_a_link_in_place_of_a_file_is_a_finding(tmp_path: Path, pattern: str, check: str, named: str) -> None:
    """Though its bytes are the listed ones."""
    output = make_output(tmp_path / "out")
    (path,) = output.glob(pattern)
    _move_and_link(path, tmp_path / f"elsewhere{path.suffix}")
    assert named in _found(output)[check]


def test_a_link_beside_the_listed_files_is_a_finding(tmp_path: Path) -> None:
    """A folder that somebody linked in is in no list."""
    output = make_output(tmp_path / "out")
    (tmp_path / "more").mkdir()
    (output / "runs" / RUN_1 / "enriched" / "more").symlink_to(tmp_path / "more", target_is_directory=True)
    assert "enriched/more is in no list" in _found(output)["unlisted"]


def test_an_output_may_lie_elsewhere_as_a_whole(tmp_path: Path) -> None:
    """So may a run's folder, or the ledger: on a larger disk, behind a link."""
    output = make_output(tmp_path / "out")
    _move_and_link(output / "runs" / RUN_1, tmp_path / "run")
    _move_and_link(output / "ledger", tmp_path / "ledger")
    _move_and_link(output, tmp_path / "whole")
    assert _found(output) == {}
