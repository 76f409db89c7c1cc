"""What is tracked names no machine, no registry and no secret."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.guards.sources import ROOT

PATTERNS = {
    "a path of somebody's machine": re.compile(r"(?<![\w.$}/-])/(?:root|work|workspace|home/\w+|Users/\w+)/"),
    "a package registry": re.compile(
        r"https?://[^\s\"')]*(?:pypi|pythonhosted|artifactory|nexus|proxy\.golang|/simple\b)", re.IGNORECASE
    ),
    "an index option": re.compile(r"--(?:extra-)?index-(?:url)|--find-(?:links)|--trusted-(?:host)"),
    "a key that looks real": re.compile(
        r"\bsk-(?:ant-|or-|proj-)?[A-Za-z0-9]{32,}|\bAIza[\w-]{35}|\bghp_\w{36}|-----BEGIN [A-Z ]*PRIVATE KEY"
    ),
}

#: Folders of a source tree without git that hold made things.
MADE = {".git", ".venv", "build", "dist", "out", "bench-results", "__pycache__"}


@cache
def _tracked() -> tuple[Path, ...]:
    """Files git tracks or would track; without git, all that are not made."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        done = None
    if done is not None and done.returncode == 0:
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not MADE.intersection(path.relative_to(ROOT).parts)]
    return tuple(path for path in paths if path.is_file() and not path.name.endswith((".parquet", ".gz")))


def _lines() -> Iterator[tuple[str, str]]:
    for path in _tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


@pytest.mark.parametrize("what", sorted(PATTERNS))
def test_tracked_files_hold_none_of(what: str) -> None:
    """No line of any tracked file matches."""
    found = [place for place, line in _lines() if PATTERNS[what].search(line)]
    assert not found, f"{what}: {found}"


def test_tracked_files_do_not_name_this_checkout() -> None:
    """The folder the project happens to be in occurs nowhere."""
    here = f"{ROOT}/"
    assert [place for place, line in _lines() if here in line] == []


def test_constraints_are_versions_only() -> None:
    """Each line of constraints.txt is a comment or name==version: no address, no hash, no option."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pin = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*==[A-Za-z0-9.!+]+")
    assert [line for line in lines if not line.startswith("#") and not pin.fullmatch(line)] == []
