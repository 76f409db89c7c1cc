"""A stand-in of Google Secret Manager for tests: one call of its REST API, over real HTTP, with faults.

As https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access says.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import google_crc32c

NAME = "projects/p/secrets/openai/versions/latest"


class SecretService:
    """What the server holds and is to do.

    Attributes:
        values: bytes by the version's name.
        answers: what the next requests get instead: a status, or the bytes of a reply.
        asked: paths that were asked for.
        address: where it listens.
    """

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.answers: list[int | bytes] = []
        self.asked: list[str] = []
        self.address = ""


def reply(value: bytes, checksum: int | None = None) -> bytes:
    """Return the reply that holds a value; its checksum is a number as text, as int64 is in JSON."""
    crc = google_crc32c.value(value) if checksum is None else checksum
    return json.dumps({"payload": {"data": base64.b64encode(value).decode(), "dataCrc32c": str(crc)}}).encode()


class _Handler(BaseHTTPRequestHandler):
    service: SecretService

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Give a version's value, or the fault whose turn it is."""
        service = self.service
        service.asked.append(self.path)
        name = self.path.removeprefix("/v1/").removesuffix(":access")
        answer: int | bytes = 404 if name not in service.values else reply(service.values[name])
        if service.answers:
            answer = service.answers.pop(0)
        status = answer if isinstance(answer, int) else 200
        said = json.dumps({"error": {"code": status, "message": "So it was said."}}).encode()
        body = said if isinstance(answer, int) else answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving_secrets() -> Iterator[SecretService]:
    """Run a service that holds nothing yet."""
    held = SecretService()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": held}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    held.address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
