"""Exchanges with the batch endpoints of the sandbox that take rows inline (Anthropic, OpenRouter)."""

import http.client
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from pipelines.sandbox.server import RunningSandbox

MESSAGES = [{"role": "user", "content": "Label this review, please."}]


class Got(NamedTuple):
    """A reply: status, headers with lower-case names, raw body."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return orjson.loads(self.raw)

    @property
    def lines(self) -> list[Any]:
        """The body's lines, each JSON."""
        return [orjson.loads(line) for line in self.raw.split(b"\n")[:-1]]


def send(sandbox: RunningSandbox, method: str, path: str, headers: dict[str, str], body: Any = None) -> Got:
    """Make one exchange on a connection of its own; a body that is no bytes is sent as JSON."""
    raw = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=30)
    try:
        connection.request(method, path, raw, headers)
        response = connection.getresponse()
        return Got(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def until(look: Callable[[], Got], done: Callable[[Any], bool]) -> Got:
    """Look again and again until what is seen says that it is done."""
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        got = look()
        if done(got.json):
            return got
        time.sleep(0.02)
    raise TimeoutError(got.raw)
