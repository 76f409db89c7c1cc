"""The only place that makes HTTP connections.

An HttpRequest enters, an HttpResponse leaves; every exception of the library becomes a CallError by one table.

Which stack: aiohttp's ClientSession, used directly. Measured with 2,000 calls of 0.5 s in flight in one process, CPU
per call: aiohttp 0.26 to 0.33 ms; httpx2 over httpx-aiohttp's transport without its client, URL and headers built
once and the body read past the response wrapper, 0.40 to 0.48 ms (0.21 to 0.23 against 0.28 to 0.30 with the
garbage collector off). That adapter also reports a lost reply as a connect time-out, which hides whether a call may
have been billed.

Guarantees:

* A POST is sent at most once. The library repeats only idempotent methods, once, when a kept connection turns out
  to be closed.
* No redirect is followed, no cookie kept, no proxy or credential taken from the environment unless asked for.
* A time-out covers everything from connecting to the last byte; above 5 s it may come up to a second late.
"""

import asyncio
import resource
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import aiohttp
from aiohttp import http_exceptions
from yarl import URL

from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpRequest, HttpResponse

_CONNECT_TIMEOUT_S = 10.0
#: Below the time at which providers and load balancers close idle connections.
_KEEP_ALIVE_S = 15.0
_DNS_CACHE_S = 300
_MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_DETAIL_CHARS = 160


class BodyTooLargeError(aiohttp.ClientPayloadError):
    """The response's body, decoded, is larger than the transport takes."""


class _Meaning(NamedTuple):
    kind: FailureKind
    may_be_billed: bool
    words: str


_NOT_CONNECTED = _Meaning(FailureKind.CONNECTION_ERROR, may_be_billed=False, words="cannot connect")
_TLS = _Meaning(FailureKind.CONNECTION_ERROR, may_be_billed=False, words="cannot make a TLS connection")
_LOST = _Meaning(FailureKind.CONNECTION_ERROR, may_be_billed=True, words="the connection was lost before the reply")
_CUT = _Meaning(FailureKind.CONNECTION_ERROR, may_be_billed=True, words="the reply was cut off")
_CONNECT_TIMEOUT = _Meaning(FailureKind.TIMEOUT, may_be_billed=False, words="no connection in time")
_TIMEOUT = _Meaning(FailureKind.TIMEOUT, may_be_billed=True, words="no complete reply in time")
_MALFORMED = _Meaning(FailureKind.INVALID_RESPONSE, may_be_billed=True, words="the reply is not valid HTTP")
_TOO_LARGE = _Meaning(FailureKind.INVALID_RESPONSE, may_be_billed=True, words="the reply is too large")
_BAD_URL = _Meaning(FailureKind.INVALID_REQUEST, may_be_billed=False, words="the address is not a valid http(s) URL")

#: Every exception class of aiohttp's client and HTTP parser, and ours; a class of later date is found by its bases.
EXCEPTIONS: dict[type[BaseException], _Meaning] = {
    BodyTooLargeError: _TOO_LARGE,
    TimeoutError: _TIMEOUT,
    OSError: _LOST,
    ssl.SSLError: _TLS,
    aiohttp.ClientError: _LOST,
    aiohttp.ClientConnectionError: _LOST,
    aiohttp.ClientConnectionResetError: _LOST,
    aiohttp.ClientOSError: _LOST,
    aiohttp.ClientConnectorError: _NOT_CONNECTED,
    aiohttp.ClientConnectorDNSError: _NOT_CONNECTED,
    aiohttp.ClientProxyConnectionError: _NOT_CONNECTED,
    aiohttp.client_exceptions.UnixClientConnectorError: _NOT_CONNECTED,
    aiohttp.ClientSSLError: _TLS,
    aiohttp.ClientConnectorSSLError: _TLS,
    aiohttp.ClientConnectorCertificateError: _TLS,
    aiohttp.ServerFingerprintMismatch: _TLS,
    aiohttp.ServerConnectionError: _LOST,
    aiohttp.ServerDisconnectedError: _LOST,
    aiohttp.ServerTimeoutError: _TIMEOUT,
    aiohttp.SocketTimeoutError: _TIMEOUT,
    aiohttp.ConnectionTimeoutError: _CONNECT_TIMEOUT,
    aiohttp.ClientPayloadError: _CUT,
    aiohttp.UploadAbortedError: _LOST,
    aiohttp.ClientHttpProxyError: _Meaning(
        FailureKind.CONNECTION_ERROR, may_be_billed=False, words="the proxy refused the connection"
    ),
    aiohttp.ClientResponseError: _MALFORMED,
    aiohttp.ContentTypeError: _MALFORMED,
    aiohttp.TooManyRedirects: _MALFORMED,
    aiohttp.WSServerHandshakeError: _MALFORMED,
    aiohttp.WSMessageTypeError: _MALFORMED,
    aiohttp.WebSocketError: _MALFORMED,
    aiohttp.EofStream: _CUT,
    aiohttp.InvalidURL: _BAD_URL,
    aiohttp.InvalidUrlClientError: _BAD_URL,
    aiohttp.NonHttpUrlClientError: _BAD_URL,
    aiohttp.RedirectClientError: _MALFORMED,
    aiohttp.InvalidUrlRedirectClientError: _MALFORMED,
    aiohttp.NonHttpUrlRedirectClientError: _MALFORMED,
    http_exceptions.HttpProcessingError: _MALFORMED,
    http_exceptions.BadHttpMessage: _MALFORMED,
    http_exceptions.HttpBadRequest: _MALFORMED,
    http_exceptions.PayloadEncodingError: _MALFORMED,
    http_exceptions.ContentEncodingError: _MALFORMED,
    http_exceptions.TransferEncodingError: _MALFORMED,
    http_exceptions.ContentLengthError: _CUT,
    http_exceptions.DecompressSizeError: _TOO_LARGE,
    http_exceptions.LineTooLong: _MALFORMED,
    http_exceptions.InvalidHeader: _MALFORMED,
    http_exceptions.BadStatusLine: _MALFORMED,
    http_exceptions.BadHttpMethod: _MALFORMED,
    http_exceptions.InvalidURLError: _MALFORMED,
}


def transport_error(exc: BaseException) -> CallError:
    """Say what an exception out of HttpTransport.send means; one that is not in the table is raised again.

    The message names the host and the system's reason where there are any, and never a header or a body.
    """
    known = exc
    if isinstance(exc, aiohttp.ClientPayloadError) and isinstance(exc.__cause__, http_exceptions.ContentEncodingError):
        known = exc.__cause__
    meaning = next((EXCEPTIONS[cls] for cls in type(known).__mro__ if cls in EXCEPTIONS), None)
    if meaning is None:
        raise exc
    detail = f"{_detail(exc)} ({type(known).__name__})"
    return CallError(kind=meaning.kind, message=meaning.words + detail, may_be_billed=meaning.may_be_billed)


def _detail(exc: BaseException) -> str:
    where = f" to {exc.host}:{exc.port}" if isinstance(exc, aiohttp.ClientConnectorError) else ""
    why = exc.os_error.strerror if isinstance(exc, aiohttp.ClientConnectorError) else getattr(exc, "strerror", None)
    return f"{where}: {why}"[:_MAX_DETAIL_CHARS] if why else where[:_MAX_DETAIL_CHARS]


class HttpTransport:
    """Keeps connections and makes exchanges over them. Built, used and closed on one event loop's thread.

    Args:
        connections: at most so many connections, and so many exchanges at a time; later ones wait in order, and
            their time-out begins when their turn comes. 1 makes a lane, whose exchanges share one connection.
            None for no limit: the throttle is the limit.
        trust_env: take proxies from http_proxy, https_proxy and no_proxy.
        max_body_bytes: a decoded body above this is an error.
    """

    def __init__(
        self, *, connections: int | None = None, trust_env: bool = False, max_body_bytes: int = _MAX_BODY_BYTES
    ) -> None:
        self._max_body_bytes = max_body_bytes
        self._trust_env = trust_env
        self._turns = None if connections is None else asyncio.Semaphore(connections)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections or 0, ttl_dns_cache=_DNS_CACHE_S, keepalive_timeout=_KEEP_ALIVE_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "rowbeam"},
        )

    async def send(self, request: HttpRequest, timeout_s: float) -> HttpResponse:
        """Make one exchange.

        Args:
            request: what to send.
            timeout_s: seconds for the whole exchange. Connecting may take 10 s of it, or half if that is less, so
                that a connect time-out, which is never billed, is always told from a reply that does not come.

        Raises:
            aiohttp.ClientError, TimeoutError: for transport_error() to interpret; any HTTP status is a response.
        """
        if self._turns is None:
            return await self._exchange(request, timeout_s)
        async with self._turns:
            return await self._exchange(request, timeout_s)

    async def close(self) -> None:
        """Close all connections; exchanges under way fail. May be called again."""
        await self._session.close()

    async def _exchange(self, request: HttpRequest, timeout_s: float) -> HttpResponse:
        proxy = _env_proxy(request.url) if self._trust_env else _NO_PROXY
        async with self._session.request(
            request.method,
            request.url,
            data=request.body or None,
            headers={**request.headers, **proxy.request_headers} if proxy.request_headers else request.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s / 2)),
            proxy=proxy.url,
            proxy_headers=proxy.tunnel_headers,
        ) as response:
            body = await self._read(response)
            return HttpResponse(response.status, {name.lower(): text for name, text in response.headers.items()}, body)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks = []
        size = 0
        while chunk := await response.content.readany():
            size += len(chunk)
            if size > self._max_body_bytes:
                raise BodyTooLargeError(f"more than {self._max_body_bytes} bytes")
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Connections:
    """A pool's transports, made when first needed: one that all calls share, and lanes of one connection each.

    Args:
        make: makes a transport with at most so many connections (None: as many as needed).
    """

    def __init__(self, make: Callable[[int | None], HttpTransport]) -> None:
        self._make = make
        self._shared: HttpTransport | None = None
        self._lanes: list[HttpTransport] = []

    def shared(self) -> HttpTransport:
        """Return the transport without a limit of its own."""
        if self._shared is None:
            self._shared = self._make(None)
        return self._shared

    @contextmanager
    def lane(self) -> Iterator[HttpTransport]:
        """Lend a lane that nobody else uses meanwhile; its connection serves the next borrower, too."""
        lane = self._lanes.pop() if self._lanes else self._make(1)
        try:
            yield lane
        finally:
            self._lanes.append(lane)

    async def close(self) -> None:
        """Close all connections, once nothing is lent any more."""
        for transport in [*self._lanes, *([self._shared] if self._shared else [])]:
            await transport.close()


class _Proxy(NamedTuple):
    """A proxy and its credentials: they go with the request itself (http) or with the tunnel's (https)."""

    url: URL | None = None
    request_headers: dict[str, str] | None = None
    tunnel_headers: dict[str, str] | None = None


_NO_PROXY = _Proxy()


def _env_proxy(url: str) -> _Proxy:
    target = URL(url)
    text = urllib.request.getproxies().get(target.scheme)
    if text is None or target.host is None or urllib.request.proxy_bypass(target.host):
        return _NO_PROXY
    proxy = URL(text if "://" in text else f"http://{text}")
    if proxy.user is None:
        return _Proxy(proxy)
    credentials = b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    header = {"Proxy-Authorization": f"Basic {credentials}"}
    proxy = proxy.with_user(None)
    return _Proxy(proxy, tunnel_headers=header) if target.scheme == "https" else _Proxy(proxy, request_headers=header)


def raise_file_limit(files: int) -> int:
    """Raise this process's limit on open files to at least `files`, as far as the system lets it.

    Returns:
        The limit now in force; if it is below `files`, fewer connections must do. Never lowers it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft == resource.RLIM_INFINITY:
        return files
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # some systems refuse what they state as the hard limit
            return soft
        return wanted
    return soft
