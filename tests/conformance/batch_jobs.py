"""What tests of whole runs by batch share: jobs for each provider, bills, audit checks, and a gate before the sandbox."""

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from pipelines.sandbox.server import RunningSandbox
from pipelines.summary import RunResult
from tests.conformance.jobs import (
    BROKEN_REFERENCES,
    MODEL,
    Output,
    database,
    merge,
    plain_rows,
    run,
    write_csv,
    write_job,
)
from tests.conformance.turnstile import Answer
from transforms.storage.batch_entry import BatchEntry
from transforms.storage.batch_ledger import list_entries

PROVIDERS = ("openai", "azure_openai", "anthropic", "openrouter")
KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY")
KEY = "sk-sandbox-key-0123456789"

_MODELS: dict[str, dict[str, Any]] = {
    "openai": {"name": MODEL},
    "azure_openai": {"name": "gpt-4o-mini", "deployment": "labels", "batch_deployment": "labels-batch"},
    "anthropic": {"name": "claude-haiku-4-5"},
    "openrouter": {"name": "openai/gpt-4o-mini"},
}
_BATCHING = {"mode": "provider_batch_api", "poll_interval": "50ms", "settle": "100ms"}

#: The references of jobs.py, where a batch may have one execution record in each run that had to do with it.
_BROKEN = BROKEN_REFERENCES | {
    "calls.batch_id": "select call_id from {calls} c left join {batches} b using (batch_id, run_id)"
    " where b.batch_id is null",
    "batches.batch_id is unique": "select batch_id from {batches} group by batch_id, run_id having count(*) > 1",
    "HTTP calls come first": "select batch_id from {calls} where batch_id in (select batch_id from {batches}"
    " where mode = 'provider_batch_api') group by batch_id having"
    " max(call_index) filter (where call_type = 'HTTP') > min(call_index) filter (where call_type = 'LLM')",
}


def broken_batch_references(folder: Path) -> dict[str, list[Any]]:
    """Return what does not resolve in the audit of all runs of an output, by reference; empty when all is well."""
    names = ("runs", "batches", "batch_members", "calls", "rows")
    parts = [
        f"select '{name}', list(broken) from ({sql.format(**{name: name for name in names})}) as broken"  # noqa: S608 - our own words
        for name, sql in _BROKEN.items()
    ]
    # Temporary tables belong to the cursor, so that they end with it.
    with database().cursor() as cursor:
        for name in names:
            files = f"read_parquet('{folder}/runs/*/audit/{name}/*.parquet', hive_partitioning = false)"
            cursor.execute(f"create temp table {name} as from {files}")
        found = cursor.execute(" union all ".join(parts)).fetchall()
    return {name: ids for name, ids in found if ids}


class Workshop:
    """A folder with a job and its input, and the sandbox it talks to."""

    def __init__(self, folder: Path, sandbox: RunningSandbox, runner: str) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.output = Output(folder / "out")
        self._runner = runner

    def write(
        self, provider: str, rows: int | list[dict[str, str]] = 30, *, gate: "Gate | None" = None, **changes: Any
    ) -> None:
        """Write a batch job for a provider, and its input; rows: plain rows, or how many."""
        self.write_rows(plain_rows(rows) if isinstance(rows, int) else rows)
        base_url = self.sandbox.base_url(provider)
        if gate is not None:
            base_url = gate.before(base_url)
        model = {"provider": provider, **_MODELS[provider]}
        write_job(self.folder, base_url, **merge({"model": model, "batching": _BATCHING}, changes))

    def beside(self, name: str) -> "Workshop":
        """Return a workshop in a folder below this one, for a job of its own."""
        folder = self.folder / name
        folder.mkdir()
        return Workshop(folder, self.sandbox, self._runner)

    def write_rows(self, rows: list[dict[str, str]]) -> None:
        """Replace the input."""
        write_csv(self.folder / "reviews.csv", rows)

    def run(self, *overrides: str) -> RunResult:
        """Run the job, with `--set` overrides; conservation and the audit's references are checked each time."""
        result = run(self.folder / "job.yaml", *overrides, runner=self._runner)
        rows = result.summary["rows"]
        assert rows["in"] == rows["enriched"] + rows["dead_lettered"] + rows["pending"]
        assert "\n" not in result.sentence
        if result.summary["calls"]["sent"] or list(self.folder.glob("out/runs/*/audit/calls/*.parquet")):
            assert broken_batch_references(self.output.folder) == {}
        return result

    def letters(self, result: RunResult) -> Counter[str]:
        """Return a run's dead letters by kind."""
        return Counter(letter["kind"] for letter in self.output.dead_letters(result.summary["run_id"]))

    def entries(self) -> list[BatchEntry]:
        """Return the batches of the ledger, oldest first."""
        return list_entries(str(self.folder / "out" / "ledger"))


def assert_all_once(result: RunResult, count: int) -> None:
    """Fail unless the run is done and has enriched so many rows."""
    assert (result.exit_code, result.sentence) == (0, "")
    assert result.summary["rows"] == {"in": count, "enriched": count, "dead_lettered": 0, "pending": 0}


def assert_paid(sandbox: RunningSandbox, *, batches: int, by_batch: int, real_time: int = 0) -> None:
    """Fail unless the bill shows so many accepted creates, rows paid by batch and in real time, and none paid twice."""
    bill = sandbox.bill()
    paid = (bill["batch_count"], bill["batch_billed"], bill["accepted"], bill["paid_twice"])
    assert paid == (batches, by_batch, real_time, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request at the gate. number: 0, 1, ... among all; body: as it came."""

    number: int
    method: str
    path: str
    key: str
    body: bytes


class Gate:
    """Stands before the sandbox: answers some requests itself, and may rewrite what the sandbox answers.

    Args:
        sandbox: where requests go on to.

    Attributes:
        decide: given a request, an answer in place of the sandbox's, or None; may be replaced at any time.
        rewrite: given a request and the sandbox's body, the body to hand on.
        seen: all requests so far.
    """

    def __init__(self, sandbox: RunningSandbox) -> None:
        self.decide: Callable[[Asked], Answer | None] = lambda _asked: None
        self.rewrite: Callable[[Asked, bytes], bytes] = lambda _asked, body: body
        self.seen: list[Asked] = []
        self._port = sandbox.port
        self._lock = threading.Lock()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                gate._serve(self)

            do_GET = do_POST  # noqa: N815 - the library's name

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def before(self, base_url: str) -> str:
        """Return a base URL of the sandbox, by way of the gate."""
        return base_url.replace(f":{self._port}", f":{self._server.server_port}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        headers = dict(handler.headers.items())
        lower = {name.lower(): value for name, value in headers.items()}
        key = lower.get("authorization", "").removeprefix("Bearer ") or lower.get("api-key", lower.get("x-api-key", ""))
        body = _read_body(handler, lower)
        with self._lock:
            asked = Asked(len(self.seen), handler.command, handler.path, key, body)
            self.seen.append(asked)
        said = self.decide(asked)
        try:
            answer = self._forward(asked, headers) if said is None else _own(said)
        except (OSError, HTTPException):
            # The sandbox has dropped the connection, and so does the gate.
            handler.close_connection = True
            return
        _send(handler, *answer)

    def _forward(self, asked: Asked, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in _OURS}
            connection.request(asked.method, asked.path, asked.body, kept)
            response = connection.getresponse()
            body = self.rewrite(asked, response.read())
            return response.status, body, {"Content-Type": response.headers["Content-Type"]}
        finally:
            connection.close()


_OURS = frozenset({"content-length", "transfer-encoding", "accept-encoding", "connection"})


def _own(said: Answer) -> tuple[int, bytes, dict[str, str]]:
    return said.status, orjson.dumps(said.body), {"Content-Type": "application/json", **said.headers}


def _read_body(handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return handler.rfile.read(int(headers.get("content-length", "0")))
    body = b""
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
