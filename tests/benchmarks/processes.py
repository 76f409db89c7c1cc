"""Processes of the benchmarks: each measured thing runs in one of its own, started here."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 1800.0
#: Where the one line with the result begins, among whatever else a process prints.
RESULT_MARK = "BENCHMARK-RESULT "


class ChildError(RuntimeError):
    """A measured process did not end with a result; the message holds the end of what it said."""


@contextmanager
def echo_server(latency_s: float) -> Iterator[str]:
    """Run the loopback server of real-time calls in its own process; gives its address."""
    with _server("echo_server", str(latency_s)) as base_url:
        yield base_url


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Run the loopback server of a provider's files in its own process; gives its address."""
    with _server("file_server", str(folder)) as base_url:
        yield base_url


@contextmanager
def _server(module: str, argument: str) -> Iterator[str]:
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", argument]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()
            server.wait(timeout=30)


def run_child(module: str, arguments: dict[str, Any], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `python -m tests.benchmarks.<module>` with JSON arguments.

    Returns:
        The child's result with `process_s` added: seconds from its start to its end, as seen from here.

    Raises:
        ChildError: it failed.
    """
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", orjson.dumps(arguments).decode()]
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    process_s = time.perf_counter() - started
    results = [line for line in done.stdout.splitlines() if line.startswith(RESULT_MARK)]
    if done.returncode or len(results) != 1:
        said = (done.stdout + done.stderr)[-2000:]
        raise ChildError(f"tests.benchmarks.{module} ended with exit code {done.returncode}:\n{said}")
    return {**orjson.loads(results[0].removeprefix(RESULT_MARK)), "process_s": process_s}


def give_result(result: dict[str, Any]) -> None:
    """Print a child's result for `run_child`."""
    print(RESULT_MARK + orjson.dumps(result).decode(), flush=True)
