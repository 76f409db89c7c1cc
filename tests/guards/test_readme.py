"""README promises only what exists: its commands, flags and make targets; and it explains every way a row can fail."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from tests.guards.sources import ROOT, modules
from transforms.records.failure import FailureKind

_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_TARGET = re.compile(r"^([a-z-]+):.*?## ", re.MULTILINE)
_WORD = re.compile(r"[a-z][a-z-]*")
_FLAG = re.compile(r"--?[A-Za-z][A-Za-z-]*")


@cache
def _readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def _snippets() -> Iterator[str]:
    """Yield each line of each code block, continuations joined, and each inline snippet outside of them."""
    for block in _FENCE.findall(_readme()):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")
    yield from _INLINE.findall(_FENCE.sub("", _readme()))


def _words(snippet: str) -> list[str]:
    try:
        return shlex.split(snippet, comments=True)
    except ValueError:
        return snippet.split()


def _command_lines(program: str) -> list[list[str]]:
    """Return the arguments wherever a snippet runs the program, also after VARIABLE=value or &&."""
    found = []
    for snippet in _snippets():
        words = _words(snippet)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        while words:
            one = words[: words.index("&&")] if "&&" in words else words
            words = words[len(one) + 1 :]
            if one and one[0].rpartition("/")[2] == program:
                found.append(one[1:])
    return found


def _own_arguments(arguments: list[str]) -> list[str]:
    """Drop what follows ` -- ` (Beam's), a pipe or a redirection."""
    for position, word in enumerate(arguments):
        if word in ("--", "|", ">", ">>", "&", ";", "2>"):
            return arguments[:position]
    return arguments


@cache
def _help(*command: str) -> str:
    program = "from pipelines.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--help"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "400", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"rowbeam {' '.join(command)} --help: {done.stderr}"
    return done.stdout


def _flags_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][A-Za-z-]*", text))


def _problem(arguments: list[str]) -> str | None:
    own = _own_arguments(arguments)
    command = own[0] if own and _WORD.fullmatch(own[0]) else None
    if command is not None and not re.search(rf"^\W*{re.escape(command)}\s", _help(), re.MULTILINE):
        return "there is no such command"
    known = _flags_of(_help(*([command] if command else [])))
    unknown = [word for word in own if _FLAG.fullmatch(word.partition("=")[0]) and word.partition("=")[0] not in known]
    return f"it has no {', '.join(unknown)}" if unknown else None


def test_every_rowbeam_command_line_exists() -> None:
    """Each `rowbeam ...` in README names a command that exists, with flags that it has."""
    lines = _command_lines("rowbeam")
    assert lines, "README shows how to run rowbeam"
    wrong = [f"rowbeam {' '.join(line)}: {problem}" for line in lines if (problem := _problem(line)) is not None]
    assert not wrong, "\n".join(wrong)


def test_every_command_is_in_readme() -> None:
    """No command of `rowbeam --help` is left out of README."""
    listed = re.split(r"Commands", _help(), maxsplit=1)[1]
    commands = set(re.findall(r"^\W*([a-z]+)\s{2,}", listed, re.MULTILINE))
    assert commands >= {"run", "plan", "check", "status", "explain", "sandbox"}
    assert commands <= {line[0] for line in _command_lines("rowbeam") if line}


def test_every_make_target_exists() -> None:
    """Each `make ...` in README is a target of the Makefile, and the two that a newcomer needs are there."""
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    named = {word for line in _command_lines("make") for word in _own_arguments(line) if _WORD.fullmatch(word)}
    assert named <= targets
    assert named >= {"demo", "test"}


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not FailureKind.OK], ids=str)
def test_every_failure_kind_is_described(kind: FailureKind) -> None:
    """A dead letter's kind is in README's table of failures, with what to do."""
    described = re.search(rf"^\|.*`{kind}`.*\|.*\w.*\|", _readme(), re.MULTILINE)
    assert described, f"no row of a table in README explains `{kind}`"


def _exit_codes() -> list[int]:
    """Return every number that a module of the command line calls EXIT_something."""
    named = (
        (target.id, node.value.value)
        for module in modules()
        if module.name.startswith("pipelines.")
        for node in module.tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    )
    return sorted({code for name, code in named if name.startswith("EXIT_") and isinstance(code, int)})


@pytest.mark.parametrize("code", _exit_codes())
def test_every_exit_code_is_described(code: int) -> None:
    """An exit code is in README's table of exit codes."""
    described = re.search(rf"^\|\s*`?{code}`?\s*\|.*\w", _readme(), re.MULTILINE)
    assert described, f"no row of a table in README begins with exit code {code}"
