"""providers/transport.py against a server that misbehaves: every way a reply can fail, and what may be billed."""

import asyncio
import gzip
import inspect
import socket
import ssl

import aiohttp
import pytest

from tests.faults.transport_server import CHUNKED, JSON, attempt, exchange, http
from transforms.providers.transport import (
    EXCEPTIONS,
    BodyTooLargeError,
    HttpTransport,
    transport_error,
)
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError

K = FailureKind


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
