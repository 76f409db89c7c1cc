"""A pseudo-terminal with a shell of sorts, which starts `rowbeam run` again and again as real processes that are cheap.

The shell imports everything once and forks. It is the terminal's session leader, so Ctrl-C reaches a run as SIGINT.
"""

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_SHELL = """
import os, signal, sys
os.setsid()
os.close(os.open(os.ttyname(0), os.O_RDWR))
signal.signal(signal.SIGINT, signal.SIG_IGN)
import pipelines.enrich, pipelines.run_command, pipelines.run_text
from pipelines.budget import budget_gap
from pipelines.cli import main
from pipelines.job import load_job
from pipelines.prepare import prepare
budget_gap(prepare(load_job(sys.argv[2]), "warm"))
for stdin in sys.argv.pop().split():
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if stdin == "nobody":
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        try:
            main()
        except SystemExit as end:  # to take Beam down properly takes a second
            sys.stdout.flush()
            os._exit(end.code)
    print("ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
_ENDED = "ended with "
_PATIENCE_S = 60


class Terminal:
    """What somebody sees and types.

    Args:
        arguments: of `rowbeam run`, the job file first.
        times: for each run, one after another: "somebody" sits at the terminal, or "nobody" does.
    """

    def __init__(self, arguments: list[str], times: list[str]) -> None:
        self._mine, theirs = pty.openpty()
        self._shell = subprocess.Popen(
            [sys.executable, "-c", _SHELL, "run", *arguments, " ".join(times)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=_ROOT,
            env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
        )
        os.close(theirs)
        self._shown = ""

    def wait_for(self, words: str) -> str:
        """Read until the words are on the screen; return what is shown since the last run ended, as one line."""
        until = time.monotonic() + _PATIENCE_S
        while words not in (shown := " ".join(self._shown.split())):
            assert self._read(until - time.monotonic()), self._shown
        return shown

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._mine, keys.encode())

    def end(self) -> tuple[int, str]:
        """Wait for the end of this run; return its exit code and all that it showed, as one line."""
        self.wait_for(_ENDED)
        while not self._shown.partition(_ENDED)[2].endswith("\n"):
            assert self._read(_PATIENCE_S), self._shown
        shown, _, code = self._shown.partition(_ENDED)
        self._shown = ""
        return int(code), " ".join(shown.split())

    def close(self) -> None:
        """End the shell, whatever it does."""
        self._shell.kill()
        self._shell.wait(_PATIENCE_S)
        os.close(self._mine)

    def _read(self, seconds: float) -> bool:
        data = b""
        # A terminal whose last user has gone gives an error on Linux.
        if select.select([self._mine], [], [], max(0.0, seconds))[0]:
            with contextlib.suppress(OSError):
                data = os.read(self._mine, 65_536)
        self._shown += data.decode("utf-8", "replace")
        return data != b""
