"""providers/budget.py and the pool that spends from it: reserved before each try, settled after it."""

import asyncio
import time
from decimal import Decimal
from types import SimpleNamespace

import pytest

from tests.unit.pool_builders import KEY, MODEL, RUN, Script, by_name, completion, ends, error, make_recorder, pairs
from transforms.providers import make_provider
from transforms.providers.budget import Purse
from transforms.providers.pool import CallPool
from transforms.providers.session import Batch
from transforms.records.answer import ModelAnswer, PendingRequest
from transforms.records.failure import FailureKind
from transforms.records.request import Prompt
from transforms.records.settings import BatchingSettings, PoolSettings
from transforms.rules.budget import WorstCase, slice_units, units_up

#: What `completion` costs: 10 and 2 tokens at 0.15 and 0.60 USD per million.
_COST = units_up(Decimal("0.0000027"))
#: Ten times that, whatever is asked.
_WORST = 10 * _COST


class _Bank:
    """A bank with an amount, and what was done with it."""

    def __init__(self, amount):
        self.amount = amount
        self.held = 0
        self.taken, self.settled = [], []

    def take(self, need):
        size = slice_units(self.amount, need)
        self.amount -= size
        self.held += size
        if size:
            self.taken.append(size)
        return size

    def settle(self, charged):
        self.amount += self.held - charged
        self.held = 0
        self.settled.append(charged)


def _purse(amount, worst=_WORST):
    bank = _Bank(amount)
    return Purse(WorstCase(0, 0, 1, worst), bank, lambda units: f"no room for {units}"), bank


def _reserve(purse, units):
    """Reserve as the pool does: again whenever waiting may help; inf when only the end of a call does."""
    held = purse.reserve(units)
    for _ in range(200):
        if held != float("inf"):
            break
        time.sleep(0.002)
        held = purse.reserve(units)
    return held


def test_a_slice_serves_many_calls():
    """One visit to the bank, then nothing but arithmetic; at the end all is settled at what was charged."""
    purse, bank = _purse(3200)
    assert _reserve(purse, 10) == 0.0
    assert [purse.reserve(10) for _ in range(9)] == [0.0] * 9
    assert bank.taken == [100]
    for _ in range(4):
        purse.settle(10, Decimal("0.000000000002"))
    assert [purse.reserve(10) for _ in range(3)] == [0.0] * 3
    purse.settle(10, None)
    purse.unreserve(10)
    purse.close()
    # 4 x 2 and one unknown at its worst are charged; the seven that are out count in full.
    assert bank.settled == [4 * 2 + 10 + 7 * 10]


def test_nothing_is_left_but_a_call_is_out():
    """Its end may free some of what it reserved, so the run does not stop yet."""
    purse, _ = _purse(10)
    assert _reserve(purse, 10) == 0.0
    assert _reserve(purse, 10) == float("inf")
    purse.settle(10, Decimal(0))
    assert _reserve(purse, 10) == 0.0
    purse.settle(10, Decimal("0.000000000001"))
    assert _reserve(purse, 10) == "no room for 10"
    assert _reserve(purse, 9) == 0.0
    purse.close()


def test_what_others_give_back_is_found_before_the_run_stops():
    """When nothing is out any more, the log is read once more."""
    purse, bank = _purse(10)
    assert _reserve(purse, 10) == 0.0
    assert _reserve(purse, 10) == float("inf")
    bank.amount += 10
    purse.settle(10, None)
    assert _reserve(purse, 10) == 0.0
    purse.settle(10, None)
    purse.close()


def test_a_call_that_costs_more_than_its_worst_case_is_made_up_for():
    """The next slice pays the difference first; what was charged is charged."""
    purse, bank = _purse(1000)
    assert _reserve(purse, 10) == 0.0
    purse.settle(10, Decimal("0.000000000100"))
    assert _reserve(purse, 10) == 0.0
    purse.settle(10, Decimal(0))
    purse.close()
    assert bank.settled == [100]


def test_a_provider_dearer_than_the_price_table_is_believed():
    """What is asked next is reserved at what such a call cost, so that the overspend ends with what was in flight."""
    purse, bank = _purse(1000, worst=10)
    assert purse.worst(Prompt(None, (("user", "a"),))) == 10
    spent = 0
    while _reserve(purse, worst := purse.worst(Prompt(None, (("user", "a"),)))) == 0.0:
        purse.settle(worst, Decimal("0.000000000070"))
        spent += 70
    assert (spent, worst) == (980, 70)
    purse.close()
    assert sum(bank.settled) == 980


def test_idle_slices_can_be_given_back():
    """A batch may need what real time holds and does not use; never while a call is out."""
    purse, bank = _purse(3200)
    assert _reserve(purse, 10) == 0.0
    assert not purse.give_back()
    purse.settle(10, Decimal("0.000000000004"))
    assert purse.give_back()
    assert (bank.settled, bank.amount) == ([4], 3196)
    assert not purse.give_back()
    assert _reserve(purse, 10) == 0.0
    purse.close()
    assert bank.settled == [4, 10]


def test_a_log_that_fails_ends_the_run():
    """The exception is not lost in the thread that met it."""
    purse, bank = _purse(100)
    bank.take = lambda _need: (_ for _ in ()).throw(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        _reserve(purse, 10)


@pytest.fixture
def open_pool(monkeypatch):
    """Return a pool over a script, with a purse."""
    monkeypatch.setattr("transforms.providers.pool.random", SimpleNamespace(random=lambda: 0.0))
    pools = []

    def make(reply, amount, *, mode="per_request", **settings):
        provider = make_provider(MODEL, None)
        purse, bank = _purse(amount)
        ledger = []
        pool = CallPool(
            provider,
            KEY,
            PoolSettings(**settings),
            BatchingSettings(mode=mode, bundle_size=4),
            recorder=make_recorder(provider, run_id=RUN),
            record=ledger.append,
            transport=Script(reply),
            purse=purse,
        )
        pool._admission._is_proven = True
        pools.append(pool)
        return pool, purse, bank

    yield make
    for pool in pools:
        pool.close()


def _ask(pool, names):
    session = pool.open()
    found = [*ends(session.feed(pairs(names), Batch("b0", len(names)))), *ends(session.drain())]
    return by_name(iter(found))


def _split(results):
    answered = {name for name, result in results.items() if isinstance(result, ModelAnswer)}
    stops = [result for result in results.values() if isinstance(result, PendingRequest)]
    return answered, stops


@pytest.mark.parametrize("mode", ["per_request", "serial_bundle"])
def test_a_pool_stops_before_the_overspend(open_pool, mode):
    """Answers come until the next worst case has no room; the rest waits, with the reason and kind BUDGET."""

    async def reply(_sent):
        await asyncio.sleep(0.002)
        return completion("ok")

    amount = 25 * _COST
    pool, purse, bank = open_pool(reply, amount, mode=mode, max_in_flight=8)
    answered, stops = _split(_ask(pool, [f"q{n}" for n in range(60)]))
    # 15 cost no more than 15, and the 16th still finds its 10 in the 10 that are left.
    assert len(answered) == 16
    assert {(stop.kind, stop.reason) for stop in stops} == {(FailureKind.BUDGET, f"no room for {_WORST}")}
    pool.close()
    purse.close()
    assert sum(bank.settled) == 16 * _COST


def test_every_try_is_reserved_anew(open_pool):
    """A lost reply may be billed and is charged at its worst; a refusal is not; both are asked again if there is room."""
    tries = []

    async def reply(sent):
        tries.append(sent.attempt)
        if sent.attempt == 1:
            raise ConnectionResetError("gone")
        return error(500) if sent.attempt == 2 else completion("ok")

    pool, purse, bank = open_pool(reply, 3 * _WORST, max_in_flight=1)
    answered, _ = _split(_ask(pool, ["q0"]))
    assert (answered, tries) == ({"q0"}, [1, 2, 3])
    pool.close()
    purse.close()
    assert bank.settled == [_WORST + _COST]


def test_a_retry_that_finds_no_room_waits_for_a_higher_budget(open_pool):
    """The request's last error is not its end: it stays pending."""

    async def reply(_sent):
        raise ConnectionResetError("gone")

    pool, _, _ = open_pool(reply, _WORST, max_in_flight=4)
    results = _ask(pool, ["q0", "q1"])
    assert {result.kind for result in results.values()} == {FailureKind.BUDGET}


def test_calls_that_are_cut_off_count_as_spent(open_pool):
    """A pool that is closed under its calls leaves them charged: they may have been billed."""

    async def reply(_sent):
        await asyncio.sleep(30)

    pool, purse, bank = open_pool(reply, 10 * _WORST, max_in_flight=3)
    session = pool.open()
    list(session.feed(pairs(["a", "b", "c"]), Batch("b0", 3)))
    deadline = time.monotonic() + 5
    while pool.in_flight < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    pool.close()
    purse.close()
    assert bank.settled == [3 * _WORST]


def test_a_settlement_that_fails_loses_nothing_that_was_spent():
    """The slices stay held, and what was spent of them is said at the end."""
    purse, bank = _purse(320)
    assert _reserve(purse, 10) == 0.0
    purse.settle(10, Decimal("0.000000000007"))
    settle, bank.settle = bank.settle, lambda _charged: (_ for _ in ()).throw(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        purse.give_back()
    bank.settle = settle
    purse.close()
    assert bank.settled == [7]
