"""What is handed on names no machine, no registry and no secret."""

import re
from collections.abc import Iterator
from functools import cache

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

#: The folders of the house; with the files beside them, all that is ever tracked.
FOLDERS = (".ci", "pipelines", "tests", "transforms")


@cache
def _texts() -> tuple[tuple[str, str], ...]:
    """Return (name, text) of every text file of the project; made things and data in binary forms are left out."""
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    contents = [(path, path.read_bytes()) for path in (*ROOT.iterdir(), *inside) if path.is_file()]
    return tuple(
        (path.relative_to(ROOT).as_posix(), data.decode(errors="replace"))
        for path, data in contents
        if b"\0" not in data
    )


def _lines() -> Iterator[tuple[str, str]]:
    for name, text in _texts():
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{name}:{number}", line


@pytest.mark.parametrize("what", sorted(PATTERNS))
def test_files_hold_none_of(what: str) -> None:
    """No line of any file matches."""
    found = [place for place, line in _lines() if PATTERNS[what].search(line)]
    assert not found, f"{what}: {found}"


def test_files_do_not_name_this_checkout() -> None:
    """The folder the project happens to be in occurs nowhere."""
    here = f"{ROOT}/"
    assert [place for place, line in _lines() if here in line] == []


def test_constraints_are_versions_only() -> None:
    """Each line of constraints.txt is a comment or name==version: no address, no hash, no option."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pin = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*==[A-Za-z0-9.!+]+")
    assert [line for line in lines if not line.startswith("#") and not pin.fullmatch(line)] == []
