"""providers/transport.py against a real server that misbehaves: every way a reply can fail, and what may be billed."""

import asyncio
import gzip
import inspect
import resource
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager

import aiohttp
import pytest

from transforms.providers.transport import (
    EXCEPTIONS,
    BodyTooLargeError,
    HttpTransport,
    raise_file_limit,
    transport_error,
)
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpRequest, HttpResponse

K = FailureKind
JSON = b'{"ok": true}'


def http(body=JSON, *headers, status="200 OK"):
    """Return a complete response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Server:
    """Reads whole requests and answers each with the next step of its script; counts what it sees.

    A step is bytes to send, or one of "reset", "close", "hang"; a tuple is several of them. The last one repeats.
    """

    def __init__(self, script):
        self.script = list(script)
        self.connections = 0
        self.requests = []
        self.hung = []

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


# -- replies ---------------------------------------------------------------------------------------------------------


def test_a_plain_exchange():
    """Method, headers and body arrive; status, lower-cased header names and body come back; no auto-redirect."""
    response, server = exchange(http(JSON, "X-Request-Id: r1", "Set-Cookie: a=b", status="429 Too Many Requests"))
    assert response == HttpResponse(429, response.headers, JSON)
    assert response.headers["x-request-id"] == "r1"
    head, body = server.requests[0]
    assert head.startswith(b"POST /v1/chat HTTP/1.1\r\n")
    assert b"Authorization: Bearer s3cret\r\n" in head
    assert head.lower().count(b"content-type:") == 1
    assert body == b'{"q":1}'


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("step", "body"),
    [
        pytest.param(http(gzip.compress(JSON), "Content-Encoding: gzip"), JSON, id="gzip"),
        pytest.param(http(b"z" * 2_097_152), b"z" * 2_097_152, id="2-MiB"),
        pytest.param((CHUNKED, b"5\r\nhello\r\n", b"1\r\n!\r\n0\r\n\r\n"), b"hello!", id="chunked"),
        pytest.param((b"HTTP/1.1 200 OK\r\n\r\n", b"until", b" close", "close"), b"until close", id="until-close"),
        pytest.param(http(b""), b"", id="empty"),
        pytest.param(http(JSON, status="307 Moved\r\nLocation: /elsewhere"), JSON, id="redirect-not-followed"),
    ],
)
def test_every_framing_of_a_body_is_read(step, body):
    """Whole bodies come back decoded, however they were framed, from a single request."""
    response, server = exchange(step)
    assert isinstance(response, HttpResponse)
    assert response.body == body
    assert len(server.requests) == 1


def test_cookies_are_not_kept():
    """A cookie set by one response is not sent with the next request."""

    async def run():
        async with serving(http(JSON, "Set-Cookie: a=b")) as (server, url):
            transport = HttpTransport()
            await attempt(transport, url)
            await attempt(transport, url)
            await transport.close()
            return server

    heads = [head.lower() for head, _ in asyncio.run(run()).requests]
    assert len(heads) == 2
    assert not any(b"cookie" in head for head in heads)


# -- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        pytest.param("reset", K.CONNECTION_ERROR, id="reset-before-reply"),
        pytest.param("close", K.CONNECTION_ERROR, id="closed-before-reply"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-", "close"), K.CONNECTION_ERROR, id="closed-in-headers"),
        pytest.param((http(b"x" * 100)[:-50], "reset"), K.CONNECTION_ERROR, id="reset-in-body"),
        pytest.param((http(b"x" * 100)[:-50], "close"), K.CONNECTION_ERROR, id="cut-content-length-body"),
        pytest.param((CHUNKED, b"5\r\nhel", "close"), K.CONNECTION_ERROR, id="cut-chunked-body"),
        pytest.param(
            (http(gzip.compress(JSON), "Content-Encoding: gzip")[:-9], "close"), K.CONNECTION_ERROR, id="cut-gzip"
        ),
        pytest.param("hang", K.TIMEOUT, id="hangs-before-reply"),
        pytest.param((http(b"x" * 100)[:-50], "hang"), K.TIMEOUT, id="hangs-in-body"),
        pytest.param((b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "close"), K.INVALID_RESPONSE, id="garbage"),
        pytest.param((b"HTTP/1.1 abc OK\r\n\r\n", "close"), K.INVALID_RESPONSE, id="bad-status-line"),
        pytest.param(http(JSON, "Content-Length: 3"), K.INVALID_RESPONSE, id="two-lengths"),
        pytest.param(http(JSON, "X: " + "y" * 20_000), K.INVALID_RESPONSE, id="endless-header"),
        pytest.param(http(b"not gzip at all", "Content-Encoding: gzip"), K.INVALID_RESPONSE, id="false-gzip"),
    ],
)
def test_a_lost_or_broken_reply_may_be_billed(step, kind):
    """After the request went out, every failure has its kind, may be billed, is short, and happened once."""
    error, server = exchange(step, timeout_s=0.4 if kind is K.TIMEOUT else 10.0)
    assert isinstance(error, CallError)
    assert (error.kind, error.may_be_billed) == (kind, True)
    assert len(error.message) < 250
    assert "s3cret" not in error.message
    assert len(server.requests) == 1


def test_a_body_over_the_cap_is_an_error_even_if_it_is_small_on_the_wire():
    """A response that unpacks to more than the cap is given up, not kept in memory."""
    bomb = gzip.compress(b"0" * 3_000_000)
    error, _ = exchange(http(bomb, "Content-Encoding: gzip"), max_body_bytes=1_000_000)
    assert (error.kind, error.may_be_billed) == (K.INVALID_RESPONSE, True)
    assert "too large" in error.message


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        pytest.param("http://127.0.0.1:{closed}/", K.CONNECTION_ERROR, "127.0.0.1:", id="refused"),
        pytest.param("http://no-such-host.invalid/", K.CONNECTION_ERROR, "no-such-host.invalid", id="dns"),
        pytest.param("https://127.0.0.1:{plain}/", K.CONNECTION_ERROR, "TLS", id="tls-to-a-plain-port"),
        pytest.param("ftp://127.0.0.1/", K.INVALID_REQUEST, "http(s)", id="not-http"),
        pytest.param("http:///nowhere", K.INVALID_REQUEST, "http(s)", id="no-host"),
    ],
)
def test_what_never_left_is_not_billed(monkeypatch, url, kind, words):
    """Failures before the request went out are never taken as paid, and name the host."""
    look_up = socket.getaddrinfo

    def without_the_network(host, *args, **options):
        if host == "no-such-host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *args, **options)

    async def greet(reader, writer):
        writer.write(b"220 no TLS here\r\n")
        await reader.read(10)
        writer.close()

    async def run():
        closed = await asyncio.start_server(greet, "127.0.0.1", 0)
        plain = await asyncio.start_server(greet, "127.0.0.1", 0)
        ports = {"closed": closed.sockets[0].getsockname()[1], "plain": plain.sockets[0].getsockname()[1]}
        closed.close()
        await closed.wait_closed()
        transport = HttpTransport()
        try:
            return await attempt(transport, url.format(**ports))
        finally:
            await transport.close()
            plain.close()

    monkeypatch.setattr(socket, "getaddrinfo", without_the_network)

    error = asyncio.run(run())
    assert (error.kind, error.may_be_billed) == (kind, False)
    assert words in error.message
    assert len(error.message) < 250


def test_a_connect_time_out_is_not_billed():
    """A server that takes the connection but never answers the TLS greeting: nothing was sent, nothing is billed."""

    async def run():
        async def silent(reader, writer):
            await asyncio.sleep(2)
            writer.close()

        listener = await asyncio.start_server(silent, "127.0.0.1", 0)
        transport = HttpTransport()
        try:
            return await attempt(transport, f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/", timeout_s=0.4)
        finally:
            await transport.close()
            listener.close()

    error = asyncio.run(run())
    assert (error.kind, error.may_be_billed) == (K.TIMEOUT, False)


def test_an_unforeseen_exception_is_raised_again():
    """What is no transport failure is not turned into one."""
    bug = KeyError("bug")
    with pytest.raises(KeyError) as caught:
        transport_error(bug)
    assert caught.value is bug


def test_every_exception_of_the_library_has_its_place_in_the_table():
    """A new aiohttp that exports a class nobody has thought about fails here."""
    modules = (aiohttp, aiohttp.client_exceptions, aiohttp.http_exceptions)
    exported = {
        thing
        for module in modules
        for _, thing in inspect.getmembers(module, inspect.isclass)
        if issubclass(thing, Exception) and thing.__module__.startswith("aiohttp.")
    }
    server_side = {thing for thing in exported if thing.__module__ == "aiohttp.multipart"}
    assert sorted(thing.__name__ for thing in exported - server_side - set(EXCEPTIONS)) == []
    assert set(EXCEPTIONS) - exported == {BodyTooLargeError, TimeoutError, OSError, ssl.SSLError}


# -- connections -----------------------------------------------------------------------------------------------------


def test_connections_are_kept_and_reused():
    """Exchanges one after another share a connection."""

    async def run():
        async with serving(http()) as (server, url):
            transport = HttpTransport()
            for _ in range(5):
                assert isinstance(await attempt(transport, url), HttpResponse)
            await transport.close()
            return server

    server = asyncio.run(run())
    assert (server.connections, len(server.requests)) == (1, 5)


def test_without_a_limit_every_call_gets_its_connection():
    """The throttle is the only limit: 150 calls at once use 150 connections."""

    async def run():
        async with serving((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"\r\nok")) as (server, url):
            transport = HttpTransport()
            results = await asyncio.gather(*(attempt(transport, url) for _ in range(150)))
            await transport.close()
            return results, server

    results, server = asyncio.run(run())
    assert [result.body for result in results] == [b"ok"] * 150
    assert server.connections == 150


def test_a_lane_keeps_all_its_requests_on_one_connection():
    """With connections=1 even calls made at once go out one after another on the same connection, each with its full time."""

    async def run():
        async with serving((b"HTTP/1.1 200 OK\r\n", b"Content-Length: 2\r\n", b"\r\nok")) as (server, url):
            lane = HttpTransport(connections=1)
            results = await asyncio.gather(*(attempt(lane, url, timeout_s=1.0) for _ in range(40)))
            await lane.close()
            return results, server

    results, server = asyncio.run(run())
    assert [result.body for result in results] == [b"ok"] * 40
    assert server.connections == 1


@pytest.mark.parametrize("pause_s", [pytest.param(0.05, id="seen"), pytest.param(0.0, id="raced")])
def test_a_post_on_a_connection_that_the_server_just_closed_is_never_sent_twice(pause_s):
    """A stale connection costs at most an error that says so; the server never sees more requests than were made."""

    async def run():
        async with serving((http(), "close")) as (server, url):
            transport = HttpTransport()
            outcomes = []
            for _ in range(10):
                outcomes.append(await attempt(transport, url))
                await asyncio.sleep(pause_s)
            await transport.close()
            return outcomes, server

    outcomes, server = asyncio.run(run())
    answered = [outcome for outcome in outcomes if isinstance(outcome, HttpResponse)]
    assert len(server.requests) == len(answered)
    assert all(outcome.kind is K.CONNECTION_ERROR for outcome in outcomes if isinstance(outcome, CallError))
    if pause_s:
        assert len(answered) == 10


def test_a_post_lost_on_a_kept_connection_is_not_repeated():
    """The server reads the second request and drops the connection: one error, and it saw that request once."""

    async def run():
        async with serving(http(), "close", http()) as (server, url):
            transport = HttpTransport()
            outcomes = [await attempt(transport, url) for _ in range(3)]
            await transport.close()
            return outcomes, server

    outcomes, server = asyncio.run(run())
    assert [isinstance(outcome, HttpResponse) for outcome in outcomes] == [True, False, True]
    assert outcomes[1].may_be_billed
    assert len(server.requests) == 3


def test_a_closed_transport_can_be_closed_again_and_breaks_off_what_is_under_way():
    """Close ends waiting exchanges with an error instead of leaving them."""

    async def run():
        async with serving("hang") as (_, url):
            transport = HttpTransport()
            waiting = asyncio.create_task(attempt(transport, url))
            await asyncio.sleep(0.05)
            await transport.close()
            await transport.close()
            return await asyncio.wait_for(waiting, 2)

    assert asyncio.run(run()).kind is K.CONNECTION_ERROR


@pytest.mark.parametrize(
    ("trust_env", "bypass", "through_proxy"),
    [
        pytest.param(False, "", False, id="not-asked"),
        pytest.param(True, "", True, id="asked"),
        pytest.param(True, "127.0.0.1", False, id="bypassed"),
    ],
)
def test_the_environments_proxy_is_used_only_when_asked_for(monkeypatch, trust_env, bypass, through_proxy):
    """http_proxy counts with trust_env only, with its credentials, and not for the hosts of no_proxy."""

    async def run():
        async with serving(http()) as (server, url):
            monkeypatch.setenv("http_proxy", url.replace("http://", "http://me:pw@").replace("/v1/chat", ""))
            monkeypatch.setenv("no_proxy", bypass)
            transport = HttpTransport(trust_env=trust_env)
            outcome = await attempt(transport, "http://127.0.0.1:1/v1/chat", timeout_s=2.0)
            await transport.close()
            return outcome, server

    outcome, server = asyncio.run(run())
    assert isinstance(outcome, HttpResponse) == through_proxy
    assert len(server.requests) == int(through_proxy)
    if through_proxy:
        assert server.requests[0][0].startswith(b"POST http://127.0.0.1:1/v1/chat HTTP/1.1")
        assert b"Proxy-Authorization: Basic bWU6cHc=\r\n" in server.requests[0][0]


# -- the limit on open files -----------------------------------------------------------------------------------------


def test_the_file_limit_is_raised_as_far_as_the_system_lets():
    """It rises to what is asked for, stops at the hard limit, and is never lowered."""
    code = (
        "import resource as r\n"
        "from transforms.providers.transport import raise_file_limit as f\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (128, 512))\n"
        "print(f(300), r.getrlimit(r.RLIMIT_NOFILE)[0], f(100), f(9999), r.getrlimit(r.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["300", "300", "300", "512", "512"]


def test_the_file_limit_in_force_is_what_it_says():
    """Asking for less than there is changes nothing."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raise_file_limit(1) in {1, soft}
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft
