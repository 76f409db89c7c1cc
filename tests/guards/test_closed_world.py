"""The fences of conftest.py hold: no test can reach the network, meet a key of the person who runs it, or leave a trace."""

import os
import socket

import pytest

OUTSIDE = "192.0.2.1"  # reserved for documentation: nobody lives there


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_connection_to_the_outside_is_an_error(method: str, network_attempts: list[str]) -> None:
    """A socket can't be connected to another machine."""
    with socket.socket() as plug, pytest.raises(RuntimeError, match="tests have no network"):
        getattr(plug, method)((OUTSIDE, 443))
    assert network_attempts == [f"{OUTSIDE}:443"]
    network_attempts.clear()


def test_names_of_the_outside_can_not_be_looked_up(network_attempts: list[str]) -> None:
    """A look-up fails as it does on a machine without a network, and is held against the test."""
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("api.example.com", 443)
    assert network_attempts == ["api.example.com"]
    network_attempts.clear()


def test_this_machine_can_be_reached() -> None:
    """Loopback works, by address and by name."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, server.getsockname()[1]), timeout=5).close()


@pytest.mark.parametrize("round_", [1, 2])
def test_environment_is_put_back(round_: int) -> None:
    """What a test puts into the environment is gone in the next, and no key was there to begin with."""
    assert "LEFT_BEHIND" not in os.environ
    assert not [name for name in os.environ if name.endswith("_API_KEY")]
    os.environ["LEFT_BEHIND"] = str(round_)
