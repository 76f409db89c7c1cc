"""A pool that asks for leave before each call: nothing goes without it, and nothing waits for ever."""

import threading
import time
from types import SimpleNamespace

import pytest

from tests.unit.pool_builders import (
    PATIENCE_S,
    Script,
    by_name,
    error,
    kinds,
    make_desk,
    pairs,
    until,
)
from tests.unit.pool_scripts import answer, scripted
from transforms.providers.permits import Permits
from transforms.providers.session import Batch
from transforms.records.answer import PendingRequest
from transforms.records.failure import FailureKind


def test_every_call_is_sent_with_leave_and_none_without(tmp_path):
    """Asked once for each try, by several threads at a time, and before it is sent."""
    asked, lock = [], threading.Lock()

    def allow(calls):
        time.sleep(0.02)
        with lock:
            asked.append((calls, len(script.sent)))
        return True

    script = Script(answer)
    with make_desk(script, permits=Permits(allow, "at here")) as desk:
        started = time.monotonic()
        results = desk.ask([str(n) for n in range(64)])
        took_s = time.monotonic() - started
    assert set(kinds(results).values()) == {FailureKind.OK}
    assert [calls for calls, _ in asked] == [1] * 64
    assert all(sent <= before for before, (_, sent) in enumerate(asked))
    assert took_s < 64 * 0.02


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
@pytest.mark.parametrize(
    ("failure", "says"),
    [
        pytest.param(ConnectionError("no route"), "gives no answer (ConnectionError: no route)", id="unreachable"),
        pytest.param(None, "gave an answer that is neither yes nor wait", id="no-leave"),
    ],
)
def test_without_leave_nothing_is_sent_and_the_run_can_be_resumed(mode, failure, says):
    """It fails closed: whoever limits a provider would rather wait than pay; the rest is left pending."""
    left = 3

    def allow(_calls):
        nonlocal left
        left -= 1
        if left >= 0:
            return True
        if failure:
            raise failure
        return False

    script = Script(answer)
    with make_desk(script, mode=mode, max_in_flight=1, permits=Permits(allow, "at limiter:8081")) as desk:
        results = desk.ask([str(n) for n in range(20)])
        assert desk.pool.in_flight == 0
    pending = [result for result in results.values() if isinstance(result, PendingRequest)]
    assert len(script.sent) == 3
    assert len(pending) == 17
    assert {result.kind for result in pending} == {None}
    assert all(f"the rate limiter at limiter:8081 {says}, and nothing is sent" in result.reason for result in pending)


def test_a_pool_that_is_closed_does_not_wait_for_leave():
    """A limiter's window may last an hour."""
    gate = threading.Event()
    script = Script(answer)
    with make_desk(script, permits=Permits(lambda _calls: gate.wait(PATIENCE_S), "at here")) as desk:
        session = desk.pool.open()
        list(session.feed(pairs(["a", "b"]), Batch("b", 2)))
        until(lambda: desk.pool.in_flight == 2)
        started = time.monotonic()
    assert time.monotonic() - started < PATIENCE_S / 2
    gate.set()
    assert script.sent == []


def test_leave_that_comes_after_the_deadline_is_not_used(monkeypatch):
    """The request has ended by then, as its last try did."""
    monkeypatch.setattr("transforms.providers.pool.random", SimpleNamespace(random=lambda: 0.0))
    waits = iter([0.0, 0.4])

    def allow(_calls):
        time.sleep(next(waits))
        return True

    script = scripted(a=[error(500)])
    with make_desk(script, deadline=0.2, permits=Permits(allow, "at here")) as desk:
        results = by_name(desk.stream(["a"]))
    assert len(script.sent) == 1
    assert "the deadline of 0.2 s passed" in results["a"].reason
