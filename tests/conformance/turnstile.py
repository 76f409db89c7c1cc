"""A provider in front of the sandbox that lets some requests through and answers the others itself."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import orjson

from pipelines.sandbox.server import RunningSandbox


@dataclass(frozen=True)
class Answer:
    """What the turnstile says instead of the sandbox."""

    status: int
    body: dict[str, object]
    headers: dict[str, str] = field(default_factory=dict)


#: Takes the request's number (0, 1, ...) and the key it came with; None lets it through.
Decide = Callable[[int, str], Answer | None]


def refusal(status: int, message: str, kind: str, code: str | None) -> Answer:
    """Return an error in OpenAI's form."""
    return Answer(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})


class Turnstile:
    """Serves on a free port until the `with` block ends; `decide` may be replaced at any time."""

    def __init__(self, sandbox: RunningSandbox, decide: Decide) -> None:
        self.decide = decide
        self.requests = 0
        self._port = sandbox.port
        self._lock = threading.Lock()
        turnstile = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer, headers = turnstile._answer(self.path, body, self.headers["Authorization"])
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def base_url(self) -> str:
        """What the job's model.base_url is to be."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str, body: bytes, authorization: str) -> tuple[int, bytes, dict[str, str]]:
        with self._lock:
            number = self.requests
            self.requests += 1
        said = self.decide(number, authorization.removeprefix("Bearer "))
        if said is not None:
            return said.status, orjson.dumps(said.body), {"Content-Type": "application/json", **said.headers}
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("POST", path, body, {"Authorization": authorization, "Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read(), {"Content-Type": response.headers["Content-Type"]}
        finally:
            connection.close()
