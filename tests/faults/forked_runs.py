"""Runs in processes of their own that are cheap to start: one process imports everything and forks for each run.

A forked run is a real process and dies by a real SIGKILL; only the import of Beam is paid once.
"""

import importlib
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner"
_ROOT = Path(__file__).resolve().parents[2]


class ForkedRuns:
    """Starts runs of a job, one at a time; use as a `with` block.

    Args:
        log: where the runs' output goes.
    """

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forked_runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=_ROOT,
        )
        assert self._read() == "ready"
        self.pid: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pid is not None:
            self.kill()
        self._process.communicate()
        self._log.close()

    def start(self, job: Path, group_run_id: str | None = None) -> int:
        """Start a run and return its process id; with group_run_id: one bundle of CallModel over all rows."""
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps([str(job), group_run_id], option=orjson.OPT_APPEND_NEWLINE))
        self._process.stdin.flush()
        self.pid = int(self._read())
        return self.pid

    def is_running(self) -> bool:
        """Tell whether the run that was started is still there, dead but not yet waited for included."""
        return self.pid is not None and Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"

    def kill(self) -> int:
        """SIGKILL the run and return how it ended: minus the signal, or an exit code if it ended first."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> int:
        """Wait for the run's end and return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"wait\n")
        self._process.stdin.flush()
        self.pid = None
        return int(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode().strip()
        if not line:
            raise RuntimeError(f"the process that forks the runs has died; see {self._log.name}")
        return line


def _run(job: str, group_run_id: str | None) -> int:
    from tests.conformance.jobs import run
    from tests.faults.one_group import ask_group

    if group_run_id is not None:
        list(ask_group(job, group_run_id))
        return 0
    return run(Path(job)).exit_code


def main() -> None:
    """Fork a child per line of standard input; a line that says "wait" waits for it."""
    for name in ("pipelines.enrich", "pipelines.runners", "tests.conformance.jobs", "tests.faults.one_group", _RUNNER):
        importlib.import_module(name)
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    say.write("ready\n")
    child = 0
    for line in sys.stdin.buffer:
        if line == b"wait\n":
            say.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
            continue
        child = os.fork()
        if child == 0:
            sys.stdin.close()
            exit_code = 70
            try:
                exit_code = _run(*orjson.loads(line))
            except Exception:  # noqa: BLE001 - the child's last word, before it must not return into the loop
                traceback.print_exc()
            finally:
                os._exit(exit_code)
        say.write(f"{child}\n")


if __name__ == "__main__":
    main()
