"""providers/sharing.py and permits.py: pools that share one run's limits, and pools that ask for leave."""

import asyncio
import threading
import time
from contextlib import ExitStack

import orjson
import pytest

from tests.unit.pool_builders import (
    MODEL,
    PATIENCE_S,
    Script,
    completion,
    in_thread,
    kinds,
    make_desk,
    pairs,
    until,
)
from tests.unit.pool_scripts import answer
from transforms import _worker
from transforms.providers.session import Batch
from transforms.records.failure import FailureKind
from transforms.records.run import CallSettings
from transforms.records.settings import AuditSettings, BatchingSettings, ModelSettings, PoolSettings
from transforms.rules.shares import Grant, Look, Pace
from transforms.storage.limit_shares import LimitShares

OK = FailureKind.OK
#: Turns so close that a test sees many; good for long, since a loaded machine must not make a test fail.
_PACE = Pace(turn_s=0.04, per_member_s=0.01, ttl_turns=100)


def place(ledger, whole, pace=_PACE):
    """Return one pool's place among those that share."""
    return LimitShares(str(ledger), "run", whole, pace)


def members(ledger):
    """Return what all hold, by the file; nothing before there is one."""
    path = ledger / "limits" / "run.json"
    if not path.exists():
        return []
    found = orjson.loads(path.read_bytes())
    return [member["units"] for member in found["members"].values()]


async def slow(sent):
    """Answer after a moment, so that calls overlap."""
    await asyncio.sleep(0.01)
    return completion(f"re: {sent.name}")


@pytest.mark.parametrize(
    ("pools", "max_in_flight", "mode"),
    [
        pytest.param(3, 7, "per_request", id="shared"),
        pytest.param(2, 4, "serial_bundle", id="bundles"),
    ],
)
def test_no_more_calls_are_in_flight_than_all_pools_may(tmp_path, pools, max_in_flight, mode):
    """Of all together, at any moment; and each of them gets its turn."""
    script, each = Script(slow), 20
    with ExitStack() as stack:
        desks = [
            stack.enter_context(
                make_desk(script, mode=mode, max_in_flight=max_in_flight, shares=place(tmp_path, max_in_flight))
            )
            for _ in range(pools)
        ]
        waits = [
            in_thread(lambda desk=desk, n=n: desk.ask([f"{n}-{i}" for i in range(each)]))
            for n, desk in enumerate(desks)
        ]
        found = [wait() for wait in waits]
    assert [set(kinds(results).values()) for results in found] == [{OK}] * pools
    assert script.peak <= max_in_flight
    assert members(tmp_path) == []


def test_no_more_requests_a_minute_are_sent_than_all_pools_may(tmp_path):
    """The first begins with the burst of the whole, those who come later with nothing, and the rate is one for all."""
    script, limit = Script(answer), 600
    with ExitStack() as stack:
        started = time.monotonic()
        for number in range(3):
            desk = stack.enter_context(make_desk(script, requests_per_minute=limit, shares=place(tmp_path, 100)))
            session = desk.pool.open()
            list(session.feed(pairs([f"{number}-{i}" for i in range(400)]), Batch(f"b{number}", 400)))
        until(lambda: sorted(members(tmp_path)) == [33, 33, 34])
        time.sleep(0.6)
        sent, took_s = len(script.sent), time.monotonic() - started
    assert limit / 6 <= sent <= limit / 6 + took_s * limit / 60 + 1
    assert sent >= limit / 6 + 0.3 * limit / 60


def test_a_pool_without_work_gives_its_share_back_and_asks_again(tmp_path):
    """Those that have work need not wait for it; it is not even a member."""
    with (
        make_desk(Script(answer), shares=place(tmp_path, 10)) as idle,
        make_desk(Script(slow), max_in_flight=10, shares=place(tmp_path, 10)) as busy,
    ):
        idle.ask(["a"])
        until(lambda: members(tmp_path) == [])
        work = in_thread(lambda: busy.ask([str(n) for n in range(300)]))
        until(lambda: members(tmp_path) == [10])
        assert kinds(idle.ask(["b"])) == {"b": OK}
        assert len(work()) == 300


def test_a_pool_that_dies_leaves_its_share_to_the_others_when_its_time_is_over(tmp_path):
    """Not before: it might be sending still."""
    pace = Pace(turn_s=0.05, per_member_s=0.01, ttl_turns=6)
    dead = place(tmp_path, 4, pace)
    dead.look()
    dead.settle(0)
    script = Script(answer)
    with make_desk(script, max_in_flight=4, shares=place(tmp_path, 4, pace)) as desk:
        started = time.monotonic()
        desk.ask(["a"])
    assert script.sent[0].at - started >= 0.3


def test_with_more_pools_than_slots_each_gets_its_turn_again_and_again(tmp_path):
    """Though none has done all its work."""
    script = Script(slow)
    with ExitStack() as stack:
        for number in range(3):
            desk = stack.enter_context(make_desk(script, max_in_flight=1, shares=place(tmp_path, 1)))
            session = desk.pool.open()
            list(session.feed(pairs([f"{number}-{i}" for i in range(2000)]), Batch(f"b{number}", 2000)))
        until(lambda: {sent.name[0] for sent in script.sent} == {"0", "1", "2"})
        first, before = script.sent[0].name[0], len(script.sent)
        until(lambda: first in {sent.name[0] for sent in script.sent[before:]})
    assert script.peak == 1


class Cut:
    """Shares that are cut from ten units to three at the second turn, which takes its time."""

    whole = 10

    def __init__(self):
        self.turns, self.in_use = 0, []
        self.ending, self.may_end = threading.Event(), threading.Event()

    def look(self, *, is_done=False):
        return Look(held=10 * min(1, self.turns), part=10 if self.turns == 0 else 3)

    def settle(self, in_use):
        self.turns += 1
        self.in_use.append(in_use)
        if self.turns == 2:
            self.ending.set()
            self.may_end.wait(PATIENCE_S)
        units = 10 if self.turns == 1 else max(3, in_use)
        return Grant(units, time.monotonic() + 60, time.time() + 60, 0.01, is_first=self.turns == 1)

    def leave(self):
        pass


def test_a_part_is_cut_before_others_can_read_that_it_is():
    """What is admitted while the cut is being stored is admitted on what is left."""
    shares, script = Cut(), Script(slow)
    with make_desk(script, max_in_flight=10, shares=shares) as desk:
        desk.ask(["a"])
        assert shares.ending.wait(PATIENCE_S)
        work = in_thread(lambda: desk.ask([str(n) for n in range(60)]))
        until(lambda: len(script.sent) > 20)
        assert script.peak == 3
        shares.may_end.set()
        assert len(work()) == 60
    assert script.peak == 3


class Broken(LimitShares):
    """A store that fails while it is told to."""

    broken = False

    def look(self, **options):
        if self.broken:
            raise OSError("the disk is gone")
        return super().look(**options)


def test_without_its_turns_a_pool_stops_sending_until_it_has_one(tmp_path):
    """What it held may be another's by then."""
    pace = Pace(turn_s=0.05, per_member_s=0.01, ttl_turns=4)
    shares, script = Broken(str(tmp_path), "run", 4, pace), Script(slow)
    with make_desk(script, max_in_flight=4, shares=shares) as desk:
        work = in_thread(lambda: desk.ask([str(n) for n in range(200)]))
        until(lambda: len(script.sent) > 10)
        shares.broken = True
        time.sleep(0.3)
        stopped_at = len(script.sent)
        time.sleep(0.1)
        assert len(script.sent) == stopped_at < 200
        shares.broken = False
        assert len(work()) == 200


def test_a_pool_whose_store_stays_away_ends_the_run(tmp_path, monkeypatch):
    """After as long as a dead provider is waited for."""
    monkeypatch.setattr("transforms.providers.sharing._AWAY_S", 0.05)
    shares = Broken(str(tmp_path), "run", 4, _PACE)
    shares.broken = True
    desk_of_one = make_desk(Script(answer), give_up_after=0.2, shares=shares)
    with desk_of_one as desk, pytest.raises(OSError, match="the disk is gone"):
        desk.ask(["a"])


@pytest.mark.parametrize(
    ("shared", "model", "whole"),
    [
        pytest.param(True, MODEL, 10, id="several-processes"),
        pytest.param(False, MODEL, None, id="one-process"),
        pytest.param(True, ModelSettings(provider="llama_cpp", name="smol"), None, id="each-with-its-own-model-server"),
    ],
)
def test_limits_are_shared_where_several_processes_call_one_provider(tmp_path, shared, model, whole):
    """Alone, a process pays nothing for it."""
    pool = PoolSettings(requests_per_minute=60)
    settings = CallSettings(
        "run", str(tmp_path), model, None, pool, BatchingSettings(), AuditSettings(), shared_limits=shared
    )
    found = _worker._shares(settings)
    assert (None if found is None else found.whole) == whole
