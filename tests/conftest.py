"""For every test: no network, a clean environment that is put back, and a fixed seed."""

import gc
import ipaddress
import logging
import os
import random
import re
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

SEED = 20_261_101

#: Hypothesis's own profile for continuous integration, with fewer examples: a test that needs more says so.
settings.register_profile("ci", settings.get_profile("ci"), max_examples=25)

#: Variables of the person running the tests that must not reach a test: keys, addresses, our own overrides.
_FOREIGN = re.compile(
    r".*_API_KEY$|.*_AUTH_TOKEN$|^(OPENAI|AZURE|ANTHROPIC|OPENROUTER|ROWBEAM)_.*|^(HTTPS?|ALL|NO)_PROXY$"
    r"|^(FORCE_COLOR|NO_COLOR|COLUMNS|LINES)$",
    re.IGNORECASE,
)

#: What tests tried to reach outside this machine; a background thread's attempt is charged to the test it meets.
_attempts: list[str] = []


class NetworkUsedError(RuntimeError):
    """A test tried to reach something outside this machine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the conformance tests run on another engine."""
    choices = ("FnApiRunner", "FnApiRunner+threads", "PrismRunner", "PrismRunner+process")
    parser.addoption("--engine", default="FnApiRunner", choices=choices, help="the engine of the conformance tests")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without collecting garbage, a fifth of the time: what is made stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: begun last, they would keep one process busy while the others have nothing left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _is_local(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _check_address(address: object) -> None:
    if isinstance(address, tuple) and not _is_local(address[0]):
        _attempts.append(f"{address[0]}:{address[1]}")
        raise NetworkUsedError(f"tests have no network, but something connects to {_attempts[-1]}")


def _guard_sockets(patch: pytest.MonkeyPatch) -> None:
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _check_address(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _check_address(address)
        return connect_ex(self, address)

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(host):
            name = host.decode() if isinstance(host, bytes) else str(host)
            if not name.endswith((".invalid", ".test")):
                _attempts.append(name)
            raise socket.gaierror(socket.EAI_NONAME, f"tests have no network; {name} can't be looked up")
        return look_up(host, *args, **kwargs)

    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    patch.setattr(socket, "getaddrinfo", guarded_look_up)


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """Put the root logger's handlers and level back: a command's handlers write to streams that end with its test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def _closed_world() -> Iterator[None]:
    """Shut the network and drop the runner's own variables before the first fixture of any scope."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if _FOREIGN.match(name)]:
            patch.delenv(name)
        _guard_sockets(patch)
        yield


@pytest.fixture(autouse=True)
def _clean_test() -> Iterator[None]:
    """Start from a fixed seed; put the environment back afterwards; fail a test that reached for the network."""
    before = dict(os.environ)
    random.seed(SEED)
    _attempts.clear()
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)
    assert not _attempts, f"tests have no network, but this one reached for {', '.join(sorted(set(_attempts)))}"


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder that is also the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def network_attempts() -> list[str]:
    """What this test reached for outside this machine; whoever empties it is forgiven."""
    return _attempts


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket that the library reaches as it would reach Google's."""
    from tests.unit.gcs_bucket import serving_bucket

    with serving_bucket() as (held, url):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield held
