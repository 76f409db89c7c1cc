"""A lean loopback server: reads a request, and a fixed time later gives the one answer; `/v1/messages` as Anthropic.

Plain asyncio, so that it costs a small part of what a client costs. `python -m tests.benchmarks.echo_server LATENCY`
prints its port and ends when its standard input is closed.
"""

import asyncio
import sys

from tests.benchmarks.canned import (
    ANTHROPIC_BODY,
    ANTHROPIC_HEADERS,
    OPENAI_BODY,
    OPENAI_HEADERS,
    http_response,
)
from transforms.providers.transport import raise_file_limit

_CHAT = http_response(OPENAI_HEADERS, OPENAI_BODY)
_MESSAGE = http_response(ANTHROPIC_HEADERS, ANTHROPIC_BODY)
_MAX_CONNECTIONS = 12_000
_LENGTH = b"content-length:"


class EchoProtocol(asyncio.Protocol):
    """One connection; takes one request after another."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; answers not yet due are dropped."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take what whole requests there are."""
        self._unread = self._unread + data if self._unread else data
        while (size := _request_size(self._unread)) and len(self._unread) >= size:
            answer = _MESSAGE if self._unread.startswith(b"POST /v1/messages") else _CHAT
            self._unread = self._unread[size:]
            self._loop.call_later(self._latency_s, self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


def _request_size(data: bytes) -> int:
    """Return the size of the first request in `data`, or 0 while its head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = data[:end].lower()
    start = head.find(_LENGTH)
    if start < 0:
        return end + 4
    stop = head.find(b"\r\n", start)
    return end + 4 + int(head[start + len(_LENGTH) : stop if stop >= 0 else end])


async def serve(latency_s: float) -> None:
    """Serve until standard input is closed."""
    raise_file_limit(_MAX_CONNECTIONS)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: EchoProtocol(latency_s), "127.0.0.1", 0, backlog=_MAX_CONNECTIONS)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
