"""A bare client for the sandbox's files and batches, as OpenAI and Azure have them."""

import http.client
import time
from typing import Any, NamedTuple

import orjson

from pipelines.sandbox.server import RunningSandbox

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["positive", "negative", "neutral"]}, "sure": {"type": "boolean"}},
    "required": ["label", "sure"],
    "additionalProperties": False,
}
CHAT_FORMAT = {"type": "json_schema", "json_schema": {"name": "review", "strict": True, "schema": SCHEMA}}
CHAT = "/v1/chat/completions"
ENDED = ("failed", "completed", "expired", "cancelled")
_BOUNDARY = "----rows"


class Got(NamedTuple):
    """A reply: status, headers with lower-case names, raw body."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)


def body_for(number: int, **changes: Any) -> dict[str, Any]:
    """Return the body of question `number`."""
    messages = [{"role": "user", "content": f"Label review {number}, please."}]
    return {"model": "m", "messages": messages, "response_format": CHAT_FORMAT, **changes}


def line_for(number: int, url: str = CHAT, **changes: Any) -> bytes:
    """Return the request line of question `number`, its custom id being r-<number>."""
    return orjson.dumps({"custom_id": f"r-{number}", "method": "POST", "url": url, "body": body_for(number, **changes)})


def lines_for(count: int, url: str = CHAT, **changes: Any) -> bytes:
    """Return a request file of so many questions."""
    return b"\n".join(line_for(number, url, **changes) for number in range(count))


class BatchUser:
    """Makes exchanges with one provider's part of a sandbox, each on a connection of its own.

    Args:
        prefix: of its paths: /v1, /openai/v1 or /openai.
        query: put behind every path, such as ?api-version=2024-10-21.
    """

    def __init__(self, sandbox: RunningSandbox, prefix: str = "/v1", query: str = "") -> None:
        self.sandbox = sandbox
        self._prefix = prefix
        self._query = query

    def send(self, method: str, path: str, body: Any = None, key: str = "k", **headers: str) -> Got:
        """Make one exchange; the path comes behind the prefix. body: bytes, or what becomes JSON."""
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.sandbox.port, timeout=20)
        path, _, own = path.partition("?")
        query = "&".join(filter(None, (self._query.removeprefix("?"), own)))
        try:
            all_headers = {"Authorization": f"Bearer {key}", **headers}
            connection.request(method, f"{self._prefix}{path}?{query}", data, all_headers)
            response = connection.getresponse()
            return Got(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def upload(self, data: bytes, **fields: str) -> Got:
        """Upload a request file."""
        parts = b"".join(
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in {"purpose": "batch", **fields}.items()
        )
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
        body = parts + head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
        return self.send("POST", "/files", body, **{"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"})

    def create(self, file_id: str, endpoint: str = CHAT, **fields: Any) -> Got:
        """Create a batch from an uploaded file."""
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h", **fields}
        return self.send("POST", "/batches", body)

    def start(self, data: bytes, endpoint: str = CHAT, **fields: Any) -> dict[str, Any]:
        """Upload a file, wait until it is processed, create its batch, and return that."""
        file = self.upload(data).json
        while file["status"] != "processed":
            time.sleep(0.01)
            file = self.send("GET", f"/files/{file['id']}").json
        batch: dict[str, Any] = self.create(file["id"], endpoint, **fields).json
        return batch

    def get(self, batch_id: str) -> dict[str, Any]:
        """Return a batch as it is now."""
        batch: dict[str, Any] = self.send("GET", f"/batches/{batch_id}").json
        return batch

    def wait(self, batch_id: str, *statuses: str) -> dict[str, Any]:
        """Return the batch when it has one of these statuses (none given: has ended)."""
        until_s = time.monotonic() + 20
        while (batch := self.get(batch_id))["status"] not in (statuses or ENDED):
            assert time.monotonic() < until_s, batch
            time.sleep(0.01)
        return batch

    def finish(self, data: bytes) -> dict[str, Any]:
        """Run a batch of these lines to its end."""
        return self.wait(self.start(data)["id"])

    def content(self, file_id: str) -> bytes:
        """Return a file's bytes."""
        return self.send("GET", f"/files/{file_id}/content").raw

    def results(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return all result lines of an ended batch, those of the output file first."""
        ids = [batch[name] for name in ("output_file_id", "error_file_id") if batch[name]]
        return [orjson.loads(line) for file_id in ids for line in self.content(file_id).splitlines()]
