"""CallModel through the runner, against the sandbox."""

import time
from dataclasses import replace

import apache_beam as beam
import pytest

from pipelines.sandbox.server import RunningSandbox
from tests.stages.harness import kind_of, make_request, request_id, run_stage, tally
from transforms.call_model import CallModel, _CallGroupDoFn
from transforms.records.answer import ModelAnswer
from transforms.records.call import BatchEnded, BatchOpened, CallRecord
from transforms.records.failure import FailureKind
from transforms.records.request import RequestGroup, pack
from transforms.records.run import CallSettings
from transforms.records.settings import AuditSettings, BatchingSettings, ModelSettings, PoolSettings
from transforms.storage.ledger import read_segment, segments

RUN = "20261121T053412-3f9a2c"


@pytest.fixture(scope="module")
def running(_closed_world):
    """One sandbox for the module."""
    with RunningSandbox() as sandbox:
        yield sandbox


@pytest.fixture
def settings(running, tmp_path, monkeypatch):
    """Settings for the sandbox, with a ledger of their own."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-good-0123456789")
    running.set_faults()
    running.reset()
    model = ModelSettings(provider="openai", name="gpt-4o-mini", base_url=running.base_url("openai"))
    return CallSettings(RUN, str(tmp_path / "ledger"), model, None, PoolSettings(), BatchingSettings(), AuditSettings())


def groups(*names):
    """Return groups of requests by their names."""
    return [RequestGroup(f"key{n}", tuple(pack(make_request(name)) for name in one)) for n, one in enumerate(names)]


def call(settings, *names):
    """Run the stage over groups of names."""
    return run_stage(lambda root: root | beam.Create(groups(*names)) | CallModel(settings))


def ledger(settings):
    """Return all records of the run."""
    return [record for path in segments(settings.ledger) for record in read_segment(path)]


def test_every_request_of_every_group_is_answered(settings, running):
    """One answer and one call each, riders with them; each group has its record and its end in the ledger."""
    run = call(settings, ["a", "b"], ["c"])
    assert tally([a.request.request_id for a in run["answers"]]) == tally([request_id(name) for name in "abc"])
    assert {a.request.riders[0].row.row_id for a in run["answers"]} == {"row-a", "row-b", "row-c"}
    assert {kind_of(answer) for answer in run["answers"]} == {FailureKind.OK}
    assert tally([record.call_id for record in run["calls"]]) == tally([a.call_id for a in run["answers"]])
    assert run["pending"] == []
    records = ledger(settings)
    assert sum(isinstance(record, BatchOpened) for record in records) == 2
    assert sorted(record.succeeded for record in records if isinstance(record, BatchEnded)) == [1, 2]
    assert (run.counters["CallModel/requests_sent"], run.counters["CallModel/answers"]) == (3, 3)
    assert running.bill()["accepted"] == 3


def test_a_bundle_that_is_tried_again_sends_nothing_twice(settings, running):
    """What the first try had settled is read from the ledger; call numbers go on."""
    first = call(settings, ["a", "b"])
    second = call(settings, ["a", "b"])
    assert running.bill()["accepted"] == 2
    assert {a.request.request_id: a.text for a in second["answers"]} == {
        a.request.request_id: a.text for a in first["answers"]
    }
    assert all(answer.reused for answer in second["answers"])


@pytest.mark.parametrize("in_flight_ends", [True, False], ids=["before the retry", "beside the retry"])
def test_what_a_failed_bundle_has_queued_is_not_sent(settings, in_flight_ends):
    """While another bundle keeps the pool alive: what is in flight reaches the ledger, the retry sends the rest."""
    with RunningSandbox(latency_s=0.4) as slow:
        model = settings.model.model_copy(update={"base_url": slow.base_url("openai")})
        few = replace(settings, model=model, pool=PoolSettings(max_in_flight=2))
        failed, other = _CallGroupDoFn(few), _CallGroupDoFn(few)
        (group,) = groups("abcdefgh")
        failed.setup()
        other.setup()
        failed.start_bundle()
        assert list(failed.process(group)) == []
        wait_until(lambda: slow.stats()["concurrency"])
        failed.teardown()
        if in_flight_ends:
            wait_until(lambda: not slow.stats()["concurrency"] and calls_of(few))
            time.sleep(0.2)
            assert len(calls_of(few)) == slow.bill()["accepted"] <= 2
        before = slow.bill()["accepted"]
        other.start_bundle()
        out = [unwrapped(item) for item in (*other.process(group), *other.finish_bundle())]
        other.teardown()
        answers = [item for item in out if isinstance(item, ModelAnswer)]
        assert tally([answer.request.request_id for answer in answers]) == tally([request_id(n) for n in "abcdefgh"])
        calls = calls_of(few)
        assert len({record.call_id for record in calls}) == len(calls) == slow.bill()["accepted"]
        again = sum(record.call_id.startswith(f"{record.batch_id}-t1-") for record in calls)
        assert again == (8 - before if in_flight_ends else 8)
        assert len(calls) - again <= 2
        (ended,) = (record for record in ledger(few) if isinstance(record, BatchEnded))
        assert (ended.succeeded, ended.pending) == (8, 0)


def wait_until(is_so):
    """Wait some seconds for something to become true."""
    until = time.monotonic() + 10
    while not is_so() and time.monotonic() < until:
        time.sleep(0.01)
    assert is_so()


def calls_of(settings):
    """Return the calls in the ledger."""
    return [record for record in ledger(settings) if isinstance(record, CallRecord)]


def unwrapped(item):
    """Return an output without its window and tag."""
    while hasattr(item, "value"):
        item = item.value
    return item


def test_a_refused_run_leaves_its_requests_pending(settings, monkeypatch):
    """Each comes out pending with the refusal's kind and the rows that wait; none as an answer."""
    monkeypatch.setenv("OPENAI_API_KEY", "no-credit")
    run = call(settings, ["a", "b", "c"])
    assert run["answers"] == []
    assert {(p.kind, p.riders[0].row.row_id) for p in run["pending"]} == {
        (FailureKind.QUOTA_EXHAUSTED, f"row-{name}") for name in "abc"
    }
    assert run.counters["CallModel/requests_pending"] == 3


def test_a_dry_run_sends_nothing(settings, running):
    """Every request is left pending, and there is no ledger."""
    run = call(replace(settings, dry_run=True), ["a", "b"])
    assert {(p.root_request_id, p.kind) for p in run["pending"]} == {(request_id("a"), None), (request_id("b"), None)}
    assert (run["answers"], run["calls"], ledger(settings)) == ([], [], [])
    assert running.stats()["requests"] == 0


def test_serial_bundles_report_their_size(settings):
    """The distribution holds one value per bundle."""
    serial = replace(settings, batching=BatchingSettings(mode="serial_bundle", bundle_size=2))
    run = call(serial, ["a", "b", "c"])
    assert len(run["answers"]) == 3
    assert run.distributions["CallModel/bundle_size"] == (2, 3)


def test_no_groups_give_nothing(settings):
    """All outputs are empty."""
    assert call(settings).outputs == {"answers": [], "pending": [], "calls": []}
