"""providers/pool.py: serial bundles on one connection, and the record of every try."""

import asyncio
from types import SimpleNamespace

import pytest

from tests.unit.pool_builders import Script, completion, ends, error, kinds, make_desk, pairs
from transforms.providers.session import Batch
from transforms.records.answer import PendingRequest
from transforms.records.call import CallRecord
from transforms.records.failure import FailureKind


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    """Own waits are drawn from zero up; draw zero. A session sees at once that the pool has failed."""
    monkeypatch.setattr("transforms.providers.pool.random", SimpleNamespace(random=lambda: 0.0))
    monkeypatch.setattr("transforms.providers.session._FAILURE_CHECK_S", 0.02)


async def _answer(response):
    return response


def test_a_bundle_is_asked_one_after_another_on_one_connection():
    """Bundles of at most eight, each on a lane of one connection; lanes work side by side."""

    async def reply(sent):
        await asyncio.sleep(0.003)
        return completion("ok")

    script = Script(reply)
    with make_desk(script, mode="serial_bundle") as desk:
        results = desk.ask([f"{n:02}" for n in range(20)])
    assert len(results) == 20
    assert script.connections == [1, 1, 1]
    assert set(script.lane_peaks.values()) == {1}
    assert script.peak == 3
    lanes = [[sent.name for sent in script.sent if sent.transport == lane] for lane in range(3)]
    assert lanes == [[f"{n:02}" for n in chunk] for chunk in (range(8), range(8, 16), range(16, 20))]
    assert desk.pool.take_bundle_sizes() == [8, 8, 4]


def test_a_lane_is_used_again():
    """The second bundle goes over the first one's connection."""
    script = Script(lambda sent: _answer(completion("ok")))
    with make_desk(script, mode="serial_bundle", max_in_flight=1, bundle_size=2) as desk:
        desk.ask(["a", "b"])
        desk.ask(["c", "d"])
    assert script.connections == [1]
    assert script.names() == ["a", "b", "c", "d"]


def test_a_member_that_fails_leaves_its_bundle():
    """It is tried again in another turn; the rest of the bundle goes on at once."""

    async def reply(sent):
        return error(500, retry_after_ms="50") if sent.name == "b" and sent.attempt == 1 else completion("ok")

    script = Script(reply)
    with make_desk(script, mode="serial_bundle") as desk:
        results = desk.ask(["a", "b", "c", "d"])
    assert set(kinds(results).values()) == {FailureKind.OK}
    assert script.names() == ["a", "b", "c", "d", "b"]


def test_a_member_of_a_bundle_has_its_own_deadline():
    """Waiting for its turn costs a member nothing: its time begins when it is sent."""

    async def reply(sent):
        await asyncio.sleep(0.2)
        return completion("ok")

    with make_desk(Script(reply), mode="serial_bundle", deadline=0.55, timeout=0.55) as desk:
        results = desk.ask(["a", "b", "c", "d"])
    assert set(kinds(results).values()) == {FailureKind.OK}
    waited = sorted(call.waited_ms for call in desk.calls)
    assert waited[0] < 200
    assert waited[-1] > 550


def test_a_stop_in_the_middle_of_a_bundle_hands_back_the_rest():
    """What the lane has answered is kept; the members after the refusal are not sent."""

    async def reply(sent):
        return error(402) if sent.name == "c" else completion("ok")

    script = Script(reply)
    with make_desk(script, mode="serial_bundle") as desk:
        results = desk.ask(["a", "b", "c", "d", "e"])
    assert script.names() == ["a", "b", "c"]
    assert {name for name, result in results.items() if isinstance(result, PendingRequest)} == {"c", "d", "e"}
    assert (desk.ends[0].succeeded, desk.ends[0].pending) == (2, 3)


def test_a_session_yields_the_record_of_every_try():
    """Also of those that led to another try; they are on record before they are yielded."""

    async def reply(sent):
        return error(500) if sent.attempt == 1 else completion("ok")

    with make_desk(Script(reply)) as desk:
        session = desk.pool.open()
        items = [*session.feed(pairs(["a"]), Batch("b0", 1)), *session.drain()]
    assert [item.kind for item in items if isinstance(item, CallRecord)] == [FailureKind.SERVER_ERROR, FailureKind.OK]
    assert len(list(ends(items))) == 1
