"""providers/transport.py against a real server: bodies, connections, lanes, proxies and files."""

import asyncio
import gzip
import resource
import subprocess
import sys

import pytest

from tests.faults.transport_server import CHUNKED, JSON, attempt, exchange, http, serving
from transforms.providers.transport import (
    HttpTransport,
    raise_file_limit,
)
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpResponse

K = FailureKind


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
    """The throttle is the only limit: 150 calls, none of them answered before all are there, use 150 connections."""

    async def run():
        async with serving() as (server, url):
            server.crowd, server.script = 150, [(server.crowded, http(b"ok"))]
            transport = HttpTransport()
            results = await asyncio.gather(*(attempt(transport, url, timeout_s=60.0) for _ in range(150)))
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
