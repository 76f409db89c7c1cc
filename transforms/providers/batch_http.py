"""The HTTP exchanges of provider batches: bodies of hundreds of megabytes, streamed from and to disk in flat memory.

Requests of `batch_base` enter, responses or exceptions leave; `transport.transport_error` says what an exception
means. The facade is synchronous, because it is used from Beam's threads; the connections live on an event loop in a
thread of their own. Sessions are `transport.HttpTransport`'s: no redirects, no cookies, no proxy of the environment.

Guarantees:

* A POST is sent at most once, over a connection opened for it: a kept connection that the provider closed meanwhile
  would leave open whether a create was accepted (providers.md 1.6). A GET whose connection drops before the reply is
  repeated once by the library, unseen.
* The Content-Length of a streamed body is exact.
* A download that ends before its Content-Length or its last chunk is an exception. One that has neither ends where
  the connection does; what it lacks shows by its last line and by the ids (providers.md 1.8).
* A time-out covers everything from connecting to the last byte; a download also ends when no byte comes for two
  minutes.
"""

import asyncio
import os
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import aiohttp

from transforms.providers.batch_base import FileUpload, InlineCreate
from transforms.providers.transport import BodyTooLargeError, HttpTransport
from transforms.records.errors import InternalError, RowbeamError
from transforms.records.reply import HttpRequest, HttpResponse

_CONNECT_TIMEOUT_S = 10.0
_IDLE_TIMEOUT_S = 120.0
_CLOSE_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1024 * 1024
_ERROR_BYTES = 64 * 1024

_T = TypeVar("_T")


class LocalFileError(RowbeamError):
    """A file on this machine can't be read or written; it says nothing about the provider."""


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """How a download ended. byte_count: bytes written, decoded; error_body: of another status than 200, cut to 64 KB."""

    status: int
    headers: dict[str, str]
    byte_count: int
    error_body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Post:
    """A POST of head, the first byte_count bytes of a file, and tail; is_list: newlines are sent as commas."""

    url: str
    headers: dict[str, str]
    head: bytes
    file: BinaryIO
    byte_count: int
    tail: bytes
    is_list: bool = False

    async def body(self) -> AsyncIterator[bytes]:
        """Give the body in pieces of at most 1 MB."""
        yield self.head
        left = self.byte_count
        while left:
            piece = await _on_disk(self.file.read, min(_CHUNK_BYTES, left))
            if not piece:
                raise LocalFileError("the request file became shorter while it was sent")
            left -= len(piece)
            yield piece.replace(b"\n", b",") if self.is_list else piece
        yield self.tail


class BatchHttp:
    """Makes exchanges for any number of threads, many at a time.

    Unless said otherwise a method raises what aiohttp raises, LocalFileError for the file's own troubles, and
    InternalError when `close` cut the exchange off. Any HTTP status is a response. Times are seconds.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rowbeam-batches", daemon=True)
        self._thread.start()
        self._kept = self._run(_open())

    def exchange(self, request: HttpRequest, timeout_s: float) -> HttpResponse:
        """Make one exchange whose bodies are small; a reply above 64 MB raises BodyTooLargeError."""
        if request.method == "POST":
            return self._run(_alone(lambda streams: streams.send(request, timeout_s)))
        return self._run(self._kept.send(request, timeout_s))

    def upload(self, upload: FileUpload, path: str, timeout_s: float) -> HttpResponse:
        """Send the file at `path` as multipart/form-data, after the form's fields."""
        boundary = secrets.token_hex(16)
        head, tail = _form(upload, boundary)
        headers = {**upload.headers, "Content-Type": f"multipart/form-data; boundary={boundary}"}
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            return self._post(_Post(upload.url, headers, head, file, size, tail), timeout_s)

    def send_inline(self, create: InlineCreate, lines_path: str, timeout_s: float) -> HttpResponse:
        """Send the create whose JSON holds the lines of the file at `lines_path`.

        The file is one JSON value per line, which holds no newline itself; a newline after the last one may be.
        """
        with _opened(lines_path) as file:
            size = _size_without_last_newline(file)
            post = _Post(create.url, create.headers, create.head, file, size, create.tail, is_list=True)
            return self._post(post, timeout_s)

    def download(
        self, request: HttpRequest, file: BinaryIO, timeout_s: float, max_bytes: int | None = None
    ) -> DownloadResult:
        """Write the body of a 200 to an open file, decoded from its content-encoding; of others keep the beginning.

        Args:
            request: what to ask for.
            file: at its end; after an exception it holds a part. Making it durable is the caller's.
            timeout_s: for the whole exchange.
            max_bytes: a decoded body above this raises BodyTooLargeError; None takes any.
        """
        return self._run(self._kept.download(request, file, timeout_s, max_bytes))

    def close(self) -> None:
        """Close all connections and end the thread; exchanges under way are cut off. May be called again."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=_CLOSE_TIMEOUT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=_CLOSE_TIMEOUT_S)
            self._loop.close()

    def _post(self, post: _Post, timeout_s: float) -> HttpResponse:
        return self._run(_alone(lambda streams: streams.post(post, timeout_s)))

    def _run(self, exchange: Coroutine[Any, Any, _T]) -> _T:
        if self._loop.is_closed():
            exchange.close()
            raise InternalError("the connections for batches were closed before this exchange")
        future = asyncio.run_coroutine_threadsafe(exchange, self._loop)
        try:
            return future.result()
        except CancelledError as exc:
            raise InternalError("the connections for batches were closed during this exchange") from exc
        except BaseException:
            future.cancel()  # a thread that is interrupted leaves nothing behind
            raise

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._kept.close()


class _Streams(HttpTransport):
    """A transport that also streams."""

    async def post(self, post: _Post, timeout_s: float) -> HttpResponse:
        """Send a body from disk."""
        length = len(post.head) + post.byte_count + len(post.tail)
        async with self._session.post(
            post.url,
            data=post.body(),
            headers={**post.headers, "Content-Length": str(length)},
            allow_redirects=False,
            timeout=_timeout(timeout_s),
        ) as response:
            return HttpResponse(response.status, _lowered(response), await self._read(response))

    async def download(
        self, request: HttpRequest, file: BinaryIO, timeout_s: float, max_bytes: int | None
    ) -> DownloadResult:
        """Write a body to disk."""
        async with self._session.request(
            request.method,
            request.url,
            data=request.body or None,
            headers=request.headers,
            allow_redirects=False,
            timeout=_timeout(timeout_s, idle_s=min(timeout_s, _IDLE_TIMEOUT_S)),
        ) as response:
            if response.status != 200:
                return DownloadResult(response.status, _lowered(response), 0, await _beginning(response))
            size = 0
            while piece := await response.content.readany():
                size += len(piece)
                if max_bytes is not None and size > max_bytes:
                    raise BodyTooLargeError(f"more than {max_bytes} bytes")
                await _on_disk(file.write, piece)
            return DownloadResult(response.status, _lowered(response), size)


async def _open() -> _Streams:
    return _Streams()


async def _alone(send: Callable[[_Streams], Awaitable[_T]]) -> _T:
    """Make an exchange over a connection of its own."""
    streams = _Streams()
    try:
        return await send(streams)
    finally:
        await streams.close()


def _timeout(total_s: float, idle_s: float | None = None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, connect=min(_CONNECT_TIMEOUT_S, total_s / 2), sock_read=idle_s)


def _lowered(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): text for name, text in response.headers.items()}


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    while len(body) < _ERROR_BYTES and (piece := await response.content.readany()):
        body += piece
    return body[:_ERROR_BYTES]


async def _on_disk(call: Callable[..., _T], *args: Any) -> _T:
    """Read or write away from the loop; a disk's error is never taken for the network's, which are OSErrors as well."""
    try:
        return await asyncio.to_thread(call, *args)
    except OSError as exc:
        raise LocalFileError(f"a file of the batch can't be read or written: {exc.strerror}") from exc


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as exc:
        raise LocalFileError(f"the request file {path} can't be read: {exc.strerror}") from exc


def _size_without_last_newline(file: BinaryIO) -> int:
    size = os.fstat(file.fileno()).st_size
    return size - 1 if size and os.pread(file.fileno(), 1, size - 1) == b"\n" else size


def _form(upload: FileUpload, boundary: str) -> tuple[bytes, bytes]:
    """Return what comes before and after the file; names go out as they are (OpenAI's hold brackets, 2.4)."""
    fields = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in upload.fields
    )
    file = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{upload.file_name}"\r\n'
        f"Content-Type: {upload.file_type}\r\n\r\n"
    )
    return (fields + file).encode(), f"\r\n--{boundary}--\r\n".encode()
