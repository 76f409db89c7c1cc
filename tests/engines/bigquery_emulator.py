"""BigQuery for tests: a real emulator process (bqemulator, on DuckDB), and in front of it what it leaves out.

The emulator is a program of its own, in an environment of its own: `python -m tests.engines.bigquery_emulator` makes it
in the engines' folder (see fetch.py); the variable BQEMULATOR_PYTHON may name the Python of another one.

What the emulator can't show, and who stands in for it here:
- A job id is taken once (409 Already Exists): it gives uploads ids of its own and lets a query's id be used again. `Front`
  keeps the ids, as the real service does.
- BIGNUMERIC: DuckDB has no decimals of 76 digits, so it makes no such column. Here it holds 38 digits, 18 of them
  after the point, which is what Rowbeam writes.
- Rows that are refused: it takes what DuckDB takes. `Front.poison` names values whose rows are refused.
- gs:// objects: it reads a folder. `Front.objects` are put there just before it reads them.
Not shown at all: partition pruning, clustering, quotas, costs (bytes are always 0), conflicts of two transactions, insertId
(it stores a row sent twice twice), the delay until a new table takes streamed rows, columns by name in load jobs (it goes by their order),
columns added to a table that is there (its catalogue has them then, its rows do not).
"""

import http.client
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq

from tests.engines.fetch import engines_folder

PROJECT = "local"
_PACKAGES = (
    "bqemulator==1.2.0", "duckdb==1.5.5", "duckdb-extensions", "duckdb-extension-spatial==1.5.5",
    "duckdb-extension-avro==1.5.5", "numpy", "pandas", "pyarrow",
)  # fmt: skip
_EXTENSIONS = "from duckdb_extensions import import_extension as i; i('spatial'); i('avro')"
_START_S = 60.0
_PROGRAM = """
import sys
import pyarrow as pa
from bqemulator.api.routes import tabledata
from bqemulator.storage import type_map
type_map._BQ_TO_DUCKDB["BIGNUMERIC"] = "DECIMAL(38, 18)"
arrow_type = tabledata._bq_type_to_arrow
tabledata._bq_type_to_arrow = lambda name: pa.decimal128(38, 18) if name.upper() == "BIGNUMERIC" else arrow_type(name)
from bqemulator.cli import main
sys.argv = ["bqemulator", "start", "--rest-port", sys.argv[1], "--grpc-port", sys.argv[2], "--project", "local"]
main()
"""


def emulator_python() -> str | None:
    """Return the Python that has the emulator, or None."""
    named = os.environ.get("BQEMULATOR_PYTHON")
    path = Path(named) if named else engines_folder() / "bigquery" / "bin" / "python"
    return str(path) if path.is_file() else None


def fetch_emulator() -> str:
    """Make the emulator's environment in the engines' folder, unless it is there; returns its Python."""
    folder = engines_folder() / "bigquery"
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *_PACKAGES], check=True)
        subprocess.run([str(python), "-c", _EXTENSIONS], check=True)
    return str(python)


@contextmanager
def serving_bigquery(python: str, folder: Path) -> Iterator["Front"]:
    """Start the emulator, with gs:// objects in `folder`, and a front; the front's address is for BIGQUERY_EMULATOR_HOST."""
    rest, grpc = _free_port(), _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / "emulator.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [python, "-c", _PROGRAM, str(rest), str(grpc)],
            stdout=out,
            stderr=out,
            env={**os.environ, "BQEMU_GCS_LOCAL_ROOT": str(folder)},
        )
    try:
        _wait_for(rest, process, log)
        front = Front(rest, folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"front": front}))
        server.daemon_threads = True
        front.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield front
        finally:
            server.shutdown()
            server.server_close()
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Front:
    """What the tests see and steer.

    Attributes:
        url: of the service.
        jobs: job id -> the finished job as it was answered; each id is taken once.
        poison: values whose rows are refused, in load jobs and when streamed.
        lost: names of requests (`load`, `query`, `insert`) whose next reply is lost, as often as they are named.
        down: requests whose path holds one of these get a 503.
        counts: requests done by the emulator, by name.
        scripts: texts of all query jobs.
        objects: gives the bytes of a gs:// object.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self.url = ""
        self.port = port
        self.folder = folder
        self.reset()

    def reset(self) -> None:
        """Be in order."""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.sessions: dict[str, str] = {}
        self.poison: set[str] = set()
        self.lost: list[str] = []
        self.down: list[str] = []
        self.counts: Counter[str] = Counter()
        self.scripts: list[str] = []
        self.objects: Callable[[str], bytes] | None = None

    def serve(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Answer a request."""
        url = urlsplit(path)
        if any(part in url.path for part in self.down):
            return _error(503, "backendError", "the service is away")
        if url.path.startswith("/upload/"):
            return self._upload(method, path, headers, body)
        found = re.search(r"/jobs/([^/?]+)$", url.path)
        if method == "GET" and found and found[1] in self.jobs:
            return _answer(self.jobs[found[1]])
        if method == "POST" and url.path.endswith("/jobs"):
            return self._job(path, headers, body)
        if url.path.endswith("/insertAll"):
            return self._insert(path, headers, body)
        return self.forward(method, path, headers, body)

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Let the emulator answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        kept = {
            name: value for name, value in headers.items() if name.lower() not in ("content-length", "accept-encoding")
        }
        connection.request(method, path, body or None, kept)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        dropped = ("content-length", "transfer-encoding", "connection", "date", "server")
        return response.status, {k: v for k, v in response.getheaders() if k.lower() not in dropped}, data

    def _job(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        job = json.loads(body)
        job_id = job.get("jobReference", {}).get("jobId", "")
        config = job["configuration"]
        if job_id in self.jobs:
            return _error(409, "duplicate", f"Already Exists: Job {job_id}")
        uris = config.get("load", {}).get("sourceUris", [])
        for uri in uris:
            self._place(uri)
        name = "load" if uris else "query"
        if "query" in config and not config.get("dryRun"):
            self.scripts.append(config["query"]["query"])
        if uris and any(self._is_poisoned((self.folder / uri.removeprefix("gs://")).read_bytes()) for uri in uris):
            answer = _answer(self._failed(job_id, config))
        else:
            answer = self.forward("POST", path, headers, body)
        if not config.get("dryRun"):
            self.counts[name] += 1
            if answer[0] == 200:
                self.jobs[job_id] = json.loads(answer[2])
            self._lose(name)
        return answer

    def _upload(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        session = parse_qs(urlsplit(path).query).get("upload_id", [""])[0]
        if method == "POST" and not session:
            job_id = json.loads(body)["jobReference"]["jobId"]
            if job_id in self.jobs:
                return _error(409, "duplicate", f"Already Exists: Job {job_id}")
            status, answered, data = self.forward(method, path, headers, body)
            location = next(value for name, value in answered.items() if name.lower() == "location")
            self.sessions[parse_qs(urlsplit(location).query)["upload_id"][0]] = job_id
            return status, answered, data
        job_id = self.sessions[session]
        if self._is_poisoned(body):
            job = self._failed(job_id, {"load": {"destinationTable": {}}})
        else:
            status, answered, data = self.forward(method, path, headers, body)
            if status != 200:
                return status, answered, data
            job = json.loads(data)
            job["jobReference"]["jobId"] = job_id
            job["id"] = f"{PROJECT}:US.{job_id}"
        self.counts["load"] += 1
        self.jobs[job_id] = job
        self._lose("load")
        return _answer(job)

    def _insert(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        asked = json.loads(body)
        bad = [place for place, row in enumerate(asked["rows"]) if self.poison & set(map(str, row["json"].values()))]
        asked["rows"] = [row for place, row in enumerate(asked["rows"]) if place not in bad]
        status, answered, data = self.forward("POST", path, headers, json.dumps(asked).encode())
        self.counts["insert"] += 1
        self._lose("insert")
        if status == 200:
            errors = [{"index": place, "errors": [{"reason": "invalid", "message": "poisoned"}]} for place in bad]
            return _answer({"kind": "bigquery#tableDataInsertAllResponse", "insertErrors": errors})
        return status, answered, data

    def _place(self, uri: str) -> None:
        if self.objects is not None:
            path = self.folder / uri.removeprefix("gs://")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.objects(uri))

    def _is_poisoned(self, parquet: bytes) -> bool:
        if not self.poison:
            return False
        rows = pq.read_table(io.BytesIO(parquet)).to_pylist()
        return any(self.poison & set(map(str, row.values())) for row in rows)

    def _failed(self, job_id: str, config: dict[str, Any]) -> dict[str, Any]:
        error = {"reason": "invalid", "message": "Error while reading data: a row is poisoned"}
        return {
            "kind": "bigquery#job",
            "id": f"{PROJECT}:US.{job_id}",
            "jobReference": {"projectId": PROJECT, "jobId": job_id, "location": "US"},
            "configuration": config | {"jobType": "LOAD"},
            "status": {"state": "DONE", "errorResult": error, "errors": [error]},
            "statistics": {},
        }

    def _lose(self, name: str) -> None:
        if name in self.lost:
            self.lost.remove(name)
            raise ConnectionAbortedError


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: Front

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
            del self.headers["Content-Encoding"]
        try:
            status, headers, data = self.front.serve(self.command, self.path, dict(self.headers.items()), body)
        except ConnectionAbortedError:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


def _answer(document: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def _error(status: int, reason: str, message: str) -> tuple[int, dict[str, str], bytes]:
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    return status, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the emulator did not start:\n{log.read_text(errors='replace')[-2000:]}")


def main() -> int:
    """Fetch the emulator; say in one line when it can't be had. Returns 0 always."""
    try:
        print(f"BigQuery's emulator: {fetch_emulator()}")
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(engines_folder() / "bigquery", ignore_errors=True)
        print(f"BigQuery's emulator: can't be had ({error}): tests on it will be skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
