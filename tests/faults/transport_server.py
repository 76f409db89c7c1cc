"""A server that does as its script says, and exchanges with it."""

import asyncio
from contextlib import asynccontextmanager

from transforms.providers.transport import (
    HttpTransport,
    transport_error,
)
from transforms.records.reply import HttpRequest

JSON = b'{"ok": true}'


def http(body=JSON, *headers, status="200 OK"):
    """Return a complete response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Server:
    """Reads whole requests and answers each with the next step of its script; counts what it sees.

    A step is bytes to send, or one of "reset", "close", "hang", or an event to wait for; a tuple is several of them.
    The last one repeats. `crowded` is set when request number `crowd` has come.
    """

    def __init__(self, script):
        self.script = list(script)
        self.connections = 0
        self.requests = []
        self.crowd, self.crowded = None, asyncio.Event()

    async def serve(self, reader, writer):
        """Answer one connection."""
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
                )
                self.requests.append((head, await reader.readexactly(length)))
                if len(self.requests) == self.crowd:
                    self.crowded.set()
                step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                for part in step if isinstance(step, tuple) else (step,):
                    await self.act(part, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def act(self, part, writer):
        """Do one part of a step."""
        if part == "reset":
            writer.transport.abort()
            raise ConnectionResetError
        if part == "close":
            raise ConnectionAbortedError
        if part == "hang":
            await asyncio.sleep(30)
        if isinstance(part, asyncio.Event):
            await part.wait()
            return
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(*script):
    """Run a server with this script on loopback; gives it and its address."""
    server = Server(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    tasks_before = asyncio.all_tasks()
    try:
        yield server, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/chat"
    finally:
        listener.close()
        for task in asyncio.all_tasks() - tasks_before:
            task.cancel()


async def attempt(transport, url, timeout_s=5.0, method="POST"):
    """Send one request; return the response, or the error as the pool would see it."""
    request = HttpRequest(
        method, url, {"Content-Type": "application/json", "Authorization": "Bearer s3cret"}, b'{"q":1}'
    )
    try:
        return await transport.send(request, timeout_s)
    except Exception as exc:  # noqa: BLE001 - as the pool does: what is unknown is raised again
        return transport_error(exc)


def exchange(*script, timeout_s=5.0, **options):
    """Make one exchange with a server of this script; return its outcome and the server."""

    async def run():
        async with serving(*script) as (server, url):
            transport = HttpTransport(**options)
            try:
                return await attempt(transport, url, timeout_s), server
            finally:
                await transport.close()

    return asyncio.run(run())


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
