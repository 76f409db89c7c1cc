"""A sandbox in a process of its own, for tests and benchmarks."""

import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.faults import FaultPlan

_ROOT = Path(__file__).resolve().parents[2]


class RunningSandbox:
    """Starts a sandbox on a free port and stops it at the end of the `with` block.

    The process ends also when the one that started it dies.

    Args:
        latency_s, jitter_s, faults, seed, requests_per_minute, tokens_per_minute, bill_path, port: as in
            SandboxSettings; faults may also be the text of `--faults`.
        batch: how long batches take.

    Attributes:
        port: where it listens.
        url: its address without a path, such as http://127.0.0.1:41873.
        pid: its process id.

    Raises:
        RuntimeError: it did not start; its own words are on standard error.
    """

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
        faults: FaultPlan | str | None = None,
        seed: int = 0,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        bill_path: Path | None = None,
        port: int = 0,
        batch: BatchTiming | None = None,
    ) -> None:
        plan = faults.model_dump_json() if isinstance(faults, FaultPlan) else faults
        options = {
            "--port": port,
            "--latency": latency_s,
            "--jitter": jitter_s,
            "--faults": plan,
            "--seed": seed,
            "--requests-per-minute": requests_per_minute,
            "--tokens-per-minute": tokens_per_minute,
            "--bill": bill_path,
            "--batch-validating": batch.validating_s if batch else None,
            "--batch-queue": batch.queue_s if batch else None,
            "--batch-duration": batch.duration_s if batch else None,
            "--batch-window": batch.window_s if batch else None,
        }
        command = [sys.executable, "-m", "pipelines.sandbox", "--json", "--stop-on-eof"]
        command += [f"{name}={value}" for name, value in options.items() if value is not None]
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
        )
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(timeout=10)
            self.close()
            raise RuntimeError(f"the sandbox did not start (exit code {self._process.returncode}): {command}")
        ready = orjson.loads(line)
        self.pid = self._process.pid
        self.port: int = ready["port"]
        self.url: str = ready["url"]
        self._base_urls: dict[str, str] = ready["base_urls"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def base_url(self, provider: str) -> str:
        """Return the `base_url` to set for a provider of the job file.

        OpenAI and OpenRouter include their /v1; Azure's is the resource endpoint and Anthropic's the host.
        """
        return self._base_urls[provider]

    def bill(self, *, entries: bool = False) -> dict[str, Any]:
        """Return the bill's counts, and with entries=True every accepted request and batch (batch_bill.py)."""
        return self._call("GET", "bill?entries=1" if entries else "bill")

    def stats(self) -> dict[str, Any]:
        """Return what the sandbox counted: requests by status, faults by kind, peaks."""
        return self._call("GET", "stats")

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """Return what happened around batches, in order; only what is numbered above `since` (batch_events.py)."""
        events: list[dict[str, Any]] = self._call("GET", f"events?since={since}")["events"]
        return events

    def wait_for_event(self, event: str, *, count: int = 1, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait until an event has happened so many times since start or reset; return the last of these.

        Raises:
            TimeoutError: it has not.
        """
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            found = [entry for entry in self.events() if entry["event"] == event]
            if len(found) >= count:
                return found[count - 1]
            time.sleep(0.01)
        raise TimeoutError(f"no {event} number {count} within {timeout_s:g} s; there were {self.events()}")

    def release(self) -> int:
        """Let every held request go on; return how many were held."""
        released: int = self._call("POST", "release")["released"]
        return released

    def set_faults(self, plan: FaultPlan | None = None, **values: Any) -> None:
        """Replace the fault plan from now on; no arguments: nothing goes wrong any more.

        Args:
            plan: the new plan.
            values: or its fields, such as rate_limit=0.1.
        """
        self._call("POST", "faults", (plan or FaultPlan(**values)).model_dump(mode="json"))

    def reset(self) -> None:
        """Empty bill and statistics, forget attempts, files, batches and events, fill the rate limits, start the plan anew."""
        self._call("POST", "reset")

    def close(self) -> None:
        """Stop the process and wait for its end."""
        if self._process.poll() is None:
            self._process.terminate()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait(timeout=10)

    def _call(self, method: str, page: str, body: Any = None) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, f"/_sandbox/{page}", orjson.dumps(body) if body is not None else None)
            response = connection.getresponse()
            answer: dict[str, Any] = orjson.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer["error"])
        return answer
