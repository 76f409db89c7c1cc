"""providers/pool.py when it must stop: refusals, a dead provider, failures of ours, closing; and serial bundles."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from tests.unit.pool_builders import MODEL, Script, by_name, completion, error, in_thread, make_desk
from transforms.providers import make_provider
from transforms.records.answer import ModelAnswer, PendingRequest
from transforms.records.call import BatchEnded
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    """Own waits are drawn from zero up; draw zero. A session sees at once that the pool has failed."""
    monkeypatch.setattr("transforms.providers.pool.random", SimpleNamespace(random=lambda: 0.0))
    monkeypatch.setattr("transforms.providers.session._FAILURE_CHECK_S", 0.02)


REFUSALS = [
    pytest.param(error(401), FailureKind.AUTH, id="key"),
    pytest.param(error(403), FailureKind.PERMISSION, id="permission"),
    pytest.param(error(404), FailureKind.NOT_FOUND, id="model"),
    pytest.param(error(429, "insufficient_quota"), FailureKind.QUOTA_EXHAUSTED, id="money"),
]


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
@pytest.mark.parametrize(("refusal", "kind"), REFUSALS)
def test_a_refusal_of_the_account_stops_the_run(refusal, kind, mode):
    """What is in flight is kept, what is unsent is handed back, and nothing more is sent."""

    async def reply(sent):
        if sent.name == "refused":
            await asyncio.sleep(0.02)
            return refusal
        await asyncio.sleep(0.1)
        return completion("ok")

    script = Script(reply)
    with make_desk(script, mode=mode, bundle_size=3, max_in_flight=2) as desk:
        results = desk.ask(["refused", "r1", "r2", "slow", "s1", "s2", "t1"])
        later = desk.ask(["later"])
    in_flight = "r1" if mode == "per_request" else "slow"
    assert sorted(script.names()) == sorted(["refused", in_flight])
    answered = {name for name, result in results.items() if isinstance(result, ModelAnswer)}
    assert answered == {in_flight}
    stops = [result for result in [*results.values(), *later.values()] if isinstance(result, PendingRequest)]
    assert len(stops) == 7
    assert {stop.kind for stop in stops} == {kind}
    assert len({stop.reason for stop in stops}) == 1
    assert stops[0].reason.startswith(f"openai refused the run ({kind}, HTTP {refusal.status}): ")
    first = desk.ends[0]
    assert (first.status, first.succeeded, first.failed, first.pending) == ("stopped", 1, 0, 6)
    assert sorted(str(call.kind) for call in desk.calls) == sorted(["ok", str(kind)])


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
@pytest.mark.parametrize(("refusal", "kind"), REFUSALS)
def test_a_wrong_key_or_model_costs_one_request(refusal, kind, mode):
    """The first call goes out alone: its refusal leaves all others unsent, whatever may be in flight at a time."""
    script = Script(lambda sent: _later(0.03, refusal))
    with make_desk(script, mode=mode, max_in_flight=50, bundle_size=2, proven=False) as desk:
        results = desk.ask([f"a{n}" for n in range(30)], [f"b{n}" for n in range(30)])
    assert script.names() == ["a0"]
    assert {(type(result), result.kind) for result in results.values()} == {(PendingRequest, kind)}
    assert len(results) == 60


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
@pytest.mark.parametrize(
    "first",
    [
        pytest.param(completion("ok"), id="answer"),
        pytest.param(error(400), id="bad request"),
        pytest.param(error(503, retry_after_ms="1"), id="overloaded"),
    ],
)
def test_once_the_first_call_has_ended_calls_overlap(first, mode):
    """Whatever it brought but a refusal of the account; until then nothing else is sent."""

    async def reply(sent):
        return await _later(0.03, first if sent is script.sent[0] else completion("ok"))

    script = Script(reply)
    with make_desk(script, mode=mode, max_in_flight=4, bundle_size=2, proven=False) as desk:
        assert len(desk.ask([str(n) for n in range(12)])) == 12
    assert script.sent[1].at - script.sent[0].at >= 0.03
    assert script.peak >= 3


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
def test_a_first_call_that_hangs_does_not_hold_the_rest_for_long(mode, monkeypatch):
    """After the time that the first call has to itself the others are sent, and answered before it."""
    monkeypatch.setattr("transforms.providers.admission._PROOF_S", 0.1)

    async def reply(sent):
        return await _later(1.5 if sent.name == "hangs" else 0.0, completion("ok"))

    script = Script(reply)
    with make_desk(script, mode=mode, max_in_flight=4, bundle_size=1, proven=False) as desk:
        found = list(by_name(desk.stream(["hangs", "a", "b", "c"])))
    assert found[-1] == "hangs"
    waited = [sent.at - script.sent[0].at for sent in script.sent[1:]]
    assert len(waited) == 3
    assert min(waited) >= 0.09
    assert max(waited) < 1.4


async def _later(wait_s, given):
    await asyncio.sleep(wait_s)
    return given


def test_a_request_that_waits_for_another_try_is_handed_back_when_the_run_stops():
    """A retry is a send: it is not made after a refusal."""

    async def reply(sent):
        if sent.name == "refused":
            await asyncio.sleep(0.05)
            return error(401)
        return error(500, retry_after_ms="10000")

    script = Script(reply)
    with make_desk(script) as desk:
        results = desk.ask(["refused", "waiting"])
    assert isinstance(results["waiting"], PendingRequest)
    assert script.attempts["waiting"] == 1


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
def test_a_dead_provider_leaves_everything_pending(mode):
    """Nothing is dead-lettered for the provider's absence; the sentence says what to do."""

    async def reply(sent):
        return error(503, retry_after_ms="1")

    script = Script(reply)
    with make_desk(
        script, mode=mode, bundle_size=4, max_in_flight=4, breaker_after=3, give_up_after=0.3, max_attempts=90
    ) as desk:
        started = time.monotonic()
        results = desk.ask([str(n) for n in range(12)])
        assert time.monotonic() - started < 10
    assert {type(result) for result in results.values()} == {PendingRequest}
    assert {result.kind for result in results.values()} == {None}
    assert "has given no answer for 0 s; run the job again when it is back" in results["0"].reason
    assert desk.ends[0].pending == 12


def _disk_full(_record):
    raise OSError(28, "No space left on device")


def _full_at_end(record):
    if isinstance(record, BatchEnded):
        _disk_full(record)


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
@pytest.mark.parametrize("record", [_disk_full, _full_at_end], ids=["call", "batch end"])
def test_a_ledger_that_fails_ends_every_session_with_its_error(record, mode):
    """No session hangs, none gets an answer that is not on record, and a later one gets the error at once."""
    gate = threading.Event()

    async def reply(sent):
        while not gate.is_set():
            await asyncio.sleep(0.005)
        return completion("ok")

    with make_desk(Script(reply), mode=mode, record=record) as desk:
        runs = [in_thread(lambda name=name: desk.ask([f"{name}{n}" for n in range(3)])) for name in "ab"]
        gate.set()
        for run in runs:
            with pytest.raises(OSError, match="No space left on device"):
                run()
        with pytest.raises(OSError, match="No space left on device"):
            desk.ask(["later"])


def test_a_ledger_that_fails_as_the_run_stops_does_not_hang_either():
    """The end of a group is written when the rest of it is handed back; that may fail, too."""
    with make_desk(Script(lambda sent: _answer(error(401))), record=_full_at_end) as desk:
        run = in_thread(lambda: desk.ask(["a", "b", "c"]))
        with pytest.raises(OSError, match="No space left on device"):
            run()


async def _answer(response):
    return response


def test_a_provider_that_raises_ends_the_session_with_its_error():
    """An adapter must not raise; when one does, that is no call error but a fault of ours, and is shown."""
    provider = make_provider(MODEL, None)

    def read(_response):
        raise TimeoutError("an adapter's fault, in words that the transport also uses")

    provider.read = read
    with make_desk(Script(lambda sent: _answer(completion("ok"))), provider=provider) as desk:
        run = in_thread(lambda: desk.ask(["a", "b"]))
        with pytest.raises(TimeoutError, match="an adapter's fault"):
            run()


def test_an_exception_nobody_knows_ends_the_session_with_it():
    """What the transport's table does not hold is not taken for a call error."""

    async def reply(_sent):
        raise ZeroDivisionError("unforeseen")

    with make_desk(Script(reply)) as desk:
        run = in_thread(lambda: desk.ask(["a"]))
        with pytest.raises(ZeroDivisionError, match="unforeseen"):
            run()


def test_closing_with_nothing_in_flight_is_immediate_and_may_be_repeated():
    """A pool that made no call has nothing to close."""
    threads = threading.active_count()
    with make_desk(Script(lambda sent: _answer(completion("ok")))) as desk:
        started = time.monotonic()
        desk.pool.close()
        desk.pool.close()
    assert time.monotonic() - started < 3
    assert threading.active_count() <= threads


@pytest.mark.parametrize(("mode", "transports"), [("per_request", 1), ("serial_bundle", 2)])
def test_closing_cuts_off_what_is_in_flight_and_sends_nothing_more(mode, transports):
    """Transports are closed, a session that still waits is told, and the queue is not sent."""

    async def reply(_sent):
        await asyncio.sleep(30)

    script = Script(reply)
    with make_desk(script, mode=mode, bundle_size=2, max_in_flight=2) as desk:
        run = in_thread(lambda: desk.ask(["a", "b", "c", "d", "e", "f"]))
        while script.out < 2:
            time.sleep(0.005)
        started = time.monotonic()
        desk.pool.close()
        with pytest.raises(InternalError, match="closed while answers were still waited for"):
            run()
        assert time.monotonic() - started < 10
    assert len(script.sent) == 2
    assert script.closed == len(script.connections) == transports
    assert desk.calls == []
