"""The pool over real HTTP, against the sandbox: what is paid, what is kept, how much is out, how it ends."""

import time
from types import SimpleNamespace

import pytest

from pipelines.sandbox.server import RunningSandbox
from tests.unit.pool_builders import Desk, in_thread, kinds, make_desk
from transforms.records.answer import ModelAnswer, PendingRequest
from transforms.records.call import CostSource
from transforms.records.failure import FailureKind
from transforms.records.settings import ModelSettings

K = FailureKind


@pytest.fixture(scope="module")
def running(_closed_world):
    """One sandbox for the module."""
    with RunningSandbox(latency_s=0.005) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running):
    """The sandbox, in order and with an empty bill."""
    running.set_faults()
    running.reset()
    return running


@pytest.fixture
def _short_waits(monkeypatch):
    """Own waits are drawn from zero up; draw little."""
    monkeypatch.setattr("transforms.providers.pool.random", SimpleNamespace(random=lambda: 0.05))


def model(sandbox, name="gpt-4o-mini", **changes):
    """Return settings for the sandbox's OpenAI."""
    return ModelSettings(provider="openai", name=name, base_url=sandbox.base_url("openai"), **changes)


def names(count, start=0):
    """Return so many distinct prompts."""
    return [f"review {n}" for n in range(start, start + count)]


def paid(desk: Desk) -> int:
    """Return how many calls on record have been paid or may have been."""
    return sum(call.cost_source is not CostSource.NOT_BILLED for call in desk.calls)


@pytest.mark.usefixtures("_short_waits")
def test_mixed_faults_lose_and_double_nothing(sandbox):
    """Every request has one end, most an answer; what the bill holds and the records call paid is the same."""
    sandbox.set_faults(
        rate_limit=0.01, server_error=0.05, bad_gateway=0.03, reset=0.03, cut_body=0.02,
        refusal=0.02, truncation=0.02, content_filter=0.02, slow=0.02, retry_after_s=0.02,
    )  # fmt: skip
    with make_desk(None, model=model(sandbox), max_in_flight=40, timeout=5, max_attempts=20) as desk:
        results = desk.ask(*[names(50, start) for start in range(0, 200, 50)])
    assert len(results) == 200
    found = kinds(results)
    assert set(found.values()) == {K.OK, K.REFUSAL, K.TRUNCATED, K.CONTENT_FILTERED}
    assert sum(kind is K.OK for kind in found.values()) > 160
    bill = sandbox.bill()
    lost = sum(call.http_status == 502 for call in desk.calls)
    assert paid(desk) - lost == bill["accepted"]
    assert len(desk.calls) == sandbox.stats()["requests"]
    assert sorted((c.batch_id, c.call_index) for c in desk.calls) == sorted(
        {(c.batch_id, c.call_index) for c in desk.calls}
    )


def test_without_faults_every_request_is_paid_once(sandbox):
    """One call, one line on the bill, no more at a time than allowed."""
    with make_desk(None, model=model(sandbox), max_in_flight=7) as desk:
        results = desk.ask(names(60), names(60, 60))
    assert set(kinds(results).values()) == {K.OK}
    assert sandbox.bill()["accepted"] == 120
    assert sandbox.stats()["peak_concurrency"] <= 7


def test_a_serial_bundle_is_one_connection(sandbox):
    """Three lanes, three connections, for twenty-four requests."""
    before = sandbox.stats()["connections_total"]
    with make_desk(None, model=model(sandbox), mode="serial_bundle", max_in_flight=10) as desk:
        results = desk.ask(names(24))
        stats = sandbox.stats()
    assert set(kinds(results).values()) == {K.OK}
    # Asking for the statistics is a connection, too.
    assert stats["connections_total"] - before - 1 == 3
    assert stats["peak_concurrency"] <= 3


@pytest.mark.usefixtures("_short_waits")
def test_a_storm_of_429s_is_waited_out(sandbox):
    """Everything is answered once the storm is over, and the wait asked for was kept."""
    sandbox.set_faults(storms=[{"from_s": 0, "to_s": 0.3}], retry_after_s=0.2)
    started = time.monotonic()
    with make_desk(None, model=model(sandbox), max_in_flight=20) as desk:
        results = desk.ask(names(40))
    assert set(kinds(results).values()) == {K.OK}
    assert time.monotonic() - started >= 0.2
    refused = sum(call.kind is K.RATE_LIMITED for call in desk.calls)
    assert 1 <= refused <= 60
    assert sandbox.bill()["accepted"] == 40


@pytest.mark.parametrize(
    ("key", "name", "kind"),
    [
        pytest.param("bad-key", "gpt-4o-mini", K.AUTH, id="bad key"),
        pytest.param("no-credit", "gpt-4o-mini", K.QUOTA_EXHAUSTED, id="no money"),
        pytest.param("sk-good-0123456789", "no-such-model", K.NOT_FOUND, id="no such model"),
    ],
)
def test_a_refused_account_stops_before_much_is_sent(sandbox, key, name, kind):
    """What was not sent is pending; the sentence names the provider, and nothing was paid."""
    with make_desk(None, model=model(sandbox, name), key=key, max_in_flight=4) as desk:
        results = desk.ask(names(50))
    assert {(type(result), result.kind) for result in results.values()} == {(PendingRequest, kind)}
    assert len(desk.calls) <= 4
    assert desk.pool.stop.reason.startswith(f"openai refused the run ({kind}, HTTP ")
    assert sandbox.bill()["accepted"] == 0


def test_what_is_in_flight_when_the_account_is_refused_is_kept(sandbox):
    """Another session's paid answers arrive although the run has stopped."""
    sandbox.set_faults(slow=1)
    with make_desk(None, model=model(sandbox), max_in_flight=10) as desk:
        slow = in_thread(lambda: desk.ask(names(5)))
        while sandbox.stats()["concurrency"] < 5:
            time.sleep(0.002)
        desk.pool._loop.call_soon_threadsafe(desk.pool._give_up, "no money", K.QUOTA_EXHAUSTED)
        results = slow()
        assert kinds(results) == dict.fromkeys(names(5), K.OK)
        assert {result.reason for result in desk.ask(names(3, 90)).values()} == {"no money"}
    assert sandbox.bill()["accepted"] == 5


def test_a_reply_that_never_comes_is_a_timeout_of_unknown_cost(sandbox):
    """The provider may have run it: the record says so."""
    sandbox.set_faults(hang=1)
    with make_desk(None, model=model(sandbox), timeout=0.2, max_attempts=2) as desk:
        results = desk.ask(["hanging"])
    answer = results["hanging"]
    assert isinstance(answer, ModelAnswer)
    assert (answer.kind, answer.attempts) == (K.TIMEOUT, 2)
    assert [(call.cost_usd, call.cost_source) for call in desk.calls] == [(None, CostSource.UNKNOWN)] * 2
    assert sandbox.bill()["accepted"] == 2


@pytest.mark.usefixtures("_short_waits")
def test_a_server_that_is_gone_leaves_everything_pending():
    """Connections refused open the breaker; after give_up_after the rest stays for the next run."""
    with RunningSandbox() as gone:
        settings = model(gone)
    with make_desk(None, model=settings, breaker_after=3, give_up_after=0.3, max_in_flight=3) as desk:
        results = desk.ask(names(30))
    assert sum(isinstance(result, PendingRequest) for result in results.values()) >= 25
    assert {call.kind for call in desk.calls} == {K.CONNECTION_ERROR}
    assert {call.cost_source for call in desk.calls} == {CostSource.NOT_BILLED}
    assert desk.pool.stop.kind is None
