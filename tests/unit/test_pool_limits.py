"""providers/pool.py: overlap, what is in flight and in memory, waits and deadlines."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from tests.unit.pool_builders import (
    Script,
    completion,
    ends,
    error,
    kinds,
    make_desk,
    name_of,
    pairs,
)
from tests.unit.pool_scripts import answer, scripted
from transforms.providers.session import Batch
from transforms.records.failure import FailureKind

OK = FailureKind.OK


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch):
    """Own waits are drawn from zero up; draw zero."""
    monkeypatch.setattr("transforms.providers.pool.random", SimpleNamespace(random=lambda: 0.0))


def test_groups_overlap():
    """A slow call of one group holds up neither the rest of its group nor the next group."""
    script = scripted(slow=[0.3])
    with make_desk(script) as desk:
        found = [name_of(end) for end in desk.stream(["slow", "a"], ["b", "c"])]
    assert found[-1] == "slow"
    assert sorted(found) == ["a", "b", "c", "slow"]
    assert script.peak >= 2


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
def test_no_more_calls_are_in_flight_than_allowed(mode):
    """The limit is reached and never passed, retries included."""

    async def reply(sent):
        await asyncio.sleep(0.005)
        return error(500) if sent.attempt == 1 and int(sent.name) % 3 == 0 else completion("ok")

    script = Script(reply)
    with make_desk(script, mode=mode, bundle_size=2, max_in_flight=4) as desk:
        results = desk.ask([str(n) for n in range(30)], [str(n) for n in range(30, 60)])
    assert len(results) == 60
    assert script.peak == 4


def test_memory_is_bounded_while_a_session_is_fed():
    """What is queued or in flight never passes the high-water mark by more than a group."""
    with make_desk(None) as probe:
        assert probe.pool.high_water == 2 * probe.pool.max_in_flight
    most = 0

    async def reply(_sent):
        nonlocal most
        most = max(most, desk.pool.accepted - desk.pool.settled)
        await asyncio.sleep(0.001)
        return completion("ok")

    script = Script(reply)
    with make_desk(script, max_in_flight=4) as desk:
        results = desk.ask(*[[f"{g}-{n}" for n in range(5)] for g in range(20)])
    assert len(results) == 100
    assert desk.pool.high_water == 8
    assert 8 <= most < 8 + 5


def test_feeding_yields_what_is_done_while_it_waits():
    """A caller that is held back gets answers meanwhile, so nothing piles up behind it."""
    with make_desk(Script(answer), max_in_flight=1) as desk:
        session = desk.pool.open()
        early = []
        for group in range(10):
            early += ends(session.feed(pairs([f"{group}-a", f"{group}-b"]), Batch(f"b{group}", 2)))
        late = list(ends(session.drain()))
    assert len(early) + len(late) == 20
    assert len(late) <= desk.pool.high_water + 2


def test_the_wait_a_429_asks_for_is_kept():
    """Neither the request itself nor any other is sent before it is over."""
    script = scripted(a=[error(429, retry_after_ms="250"), None])
    with make_desk(script, max_in_flight=1) as desk:
        results = desk.ask(["a", "b"])
    assert kinds(results) == {"a": OK, "b": OK}
    first, *later = script.sent
    assert all(sent.at - first.at >= 0.25 for sent in later)
    assert sum(call.waited_ms for call in desk.calls) >= 250


def test_a_lone_429_among_answers_makes_only_its_own_request_wait():
    """The others go on at once and as many at a time; the refused one is asked again when its wait is over."""
    script = scripted(a=[error(429, retry_after_ms="300"), None])
    with make_desk(script, max_in_flight=2) as desk:
        found = [name_of(end) for end in desk.stream(["w", "a", *[str(n) for n in range(20)]])]
    assert found[-1] == "a"
    refused = next(sent for sent in script.sent if sent.name == "a")
    last = script.sent[-1]
    assert (last.name, last.attempt) == ("a", 2)
    assert last.at - refused.at >= 0.3
    assert max(sent.at for sent in script.sent[:-1]) - refused.at < 0.2
    assert len(script.sent) == 23


def test_a_429_uses_up_no_tries():
    """The pool was too fast, the request is not hopeless: only its deadline ends it."""
    script = scripted(a=[*[error(429, retry_after_ms="1")] * 5, None])
    with make_desk(script, max_attempts=2) as desk:
        result = desk.ask(["a"])["a"]
    assert (result.kind, result.attempts) == (OK, 6)


def test_a_request_that_waited_for_a_slot_says_so():
    """waited_ms counts from the moment the pool took the request."""
    with make_desk(scripted(a=[0.4]), max_in_flight=1) as desk:
        desk.ask(["a", "b"])
    waited = {call.request_id: call.waited_ms for call in desk.calls}
    assert waited["a"] < 390 <= waited["b"]


def test_a_request_and_all_its_tries_end_at_the_deadline(monkeypatch):
    """No try gets more time than is left, and no wait passes it."""
    monkeypatch.setattr("transforms.providers.pool.random", SimpleNamespace(random=lambda: 0.2))
    script = scripted(a=[0.15, error(500), error(500), 5.0])
    with make_desk(script, timeout=0.1, deadline=0.4, max_attempts=50) as desk:
        started = time.monotonic()
        result = desk.ask(["a"])["a"]
        took_s = time.monotonic() - started
    assert result.kind in {FailureKind.TIMEOUT, FailureKind.SERVER_ERROR}
    assert "deadline" in result.reason
    assert took_s < 4
    assert all(sent.timeout_s <= 0.1 for sent in script.sent)
    first = script.sent[0].at
    assert all(sent.timeout_s <= 0.401 - (sent.at - first) for sent in script.sent)


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
def test_a_request_whose_deadline_passes_while_limits_hold_it_is_not_sent_again(mode):
    """A try without time to answer would be paid for nothing."""
    refused = ["r1", "r2", "r3"]
    script = scripted(b=[(0.03, error(500))], **{name: [error(429, retry_after_ms="350")] for name in refused})
    with make_desk(script, mode=mode, deadline=0.2) as desk:
        results = desk.ask(["b"], refused)
    assert kinds(results) == {"b": FailureKind.SERVER_ERROR} | dict.fromkeys(refused, FailureKind.RATE_LIMITED)
    assert "the deadline of 0.2 s passed before another try" in results["b"].reason
    assert script.attempts == dict.fromkeys(["b", *refused], 1)
    assert results["b"].call_id in {call.call_id for call in desk.calls}


def test_tokens_are_reserved_and_given_back():
    """With a token limit, a call that is not run gives its tokens back: the next is sent at once."""
    script = scripted(a=[error(400)])
    with make_desk(script, tokens_per_minute=60, max_in_flight=1) as desk:
        results = desk.ask(["a", "b"])
    assert kinds(results) == {"a": FailureKind.INVALID_REQUEST, "b": OK}
    assert script.sent[1].at - script.sent[0].at < 0.5
