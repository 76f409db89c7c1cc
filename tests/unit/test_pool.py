"""providers/pool.py and session.py over a scripted transport: answers, retries, limits, order."""

import asyncio
import threading
import time
from types import SimpleNamespace

import aiohttp
import pytest

from tests.unit.pool_builders import (
    KEY,
    PATIENCE_S,
    RUN,
    Script,
    completion,
    ends,
    error,
    in_thread,
    kinds,
    make_desk,
    name_of,
    pairs,
    response,
)
from transforms.providers.session import Batch
from transforms.records.call import CallRecord, CallStatus, CostSource
from transforms.records.failure import FailureKind

OK = FailureKind.OK


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch):
    """Own waits are drawn from zero up; draw zero."""
    monkeypatch.setattr("transforms.providers.pool.random", SimpleNamespace(random=lambda: 0.0))


async def answer(sent):
    """Answer with the question."""
    return completion(f"re: {sent.name}")


def scripted(**replies):
    """Answer by name: a list of responses, exceptions, seconds to wait, or (seconds, response); the last step repeats, others are answered."""

    async def reply(sent):
        steps = replies.get(sent.name, [None])
        step = steps[min(sent.attempt, len(steps)) - 1]
        if isinstance(step, tuple):
            await asyncio.sleep(step[0])
            step = step[1]
        if isinstance(step, float):
            await asyncio.sleep(step)
            step = None
        if isinstance(step, Exception):
            raise step
        return step or completion(f"re: {sent.name}")

    return Script(reply)


def test_every_request_of_every_group_is_answered_once_and_on_record():
    """Two groups in one session: one end, one record and one call_index each; every group's end is recorded."""
    with make_desk(Script(answer)) as desk:
        results = desk.ask(["a", "b", "c"], ["d", "e"])
    assert {name: result.text for name, result in results.items()} == {name: f"re: {name}" for name in "abcde"}
    assert sorted(call.request_id for call in desk.calls) == list("abcde")
    assert sorted((call.batch_id, call.call_index) for call in desk.calls) == [
        ("b0", 0), ("b0", 1), ("b0", 2), ("b1", 0), ("b1", 1),
    ]  # fmt: skip
    assert {(end.batch_id, end.status, end.succeeded, end.failed, end.pending) for end in desk.ends} == {
        ("b0", "completed", 3, 0, 0),
        ("b1", "completed", 2, 0, 0),
    }
    assert {results[call.request_id].call_id for call in desk.calls} == {call.call_id for call in desk.calls}


def test_an_answer_carries_what_its_call_gave():
    """Model, usage, cost, attempts and run come from the call; nothing is reused."""
    with make_desk(Script(answer)) as desk:
        result = desk.ask(["a"])["a"]
    record = desk.calls[0]
    assert (result.kind, result.attempts, result.run_id, result.reused, result.reason) == (OK, 1, RUN, False, None)
    assert (result.response_model, result.usage.input_tokens, result.usage.output_tokens) == (
        "gpt-4o-mini-2024-07-18", 10, 2,
    )  # fmt: skip
    assert result.cost_usd == record.cost_usd
    assert record.cost_source is CostSource.PRICE_TABLE
    assert record.custom_id == "custom-a"


def test_a_call_is_on_record_before_its_answer_is_handed_over():
    """While the ledger still writes, the session has nothing; when it has written, the answer comes (P4)."""
    writing, written = threading.Event(), threading.Event()

    def record(_):
        writing.set()
        assert written.wait(PATIENCE_S)

    with make_desk(Script(answer), record=record) as desk:
        session = desk.pool.open()
        assert list(session.feed(pairs(["a"]), Batch("b0", 2))) == []
        assert writing.wait(PATIENCE_S)
        assert session._take(block=False) == []
        written.set()
        assert [name_of(result) for result in ends(session.drain())] == ["a"]


def test_a_failing_request_is_tried_again_alone_and_delays_no_other():
    """Its group is answered at the first try, and handed over before it."""
    script = scripted(bad=[error(500), error(503, retry_after_ms="5"), None])
    with make_desk(script) as desk:
        found = list(desk.stream(["bad", "x", "y", "z"]))
    assert script.attempts == {"bad": 3, "x": 1, "y": 1, "z": 1}
    assert [name_of(end) for end in found] == ["x", "y", "z", "bad"]
    assert [end.attempts for end in found] == [1, 1, 1, 3]
    assert [(call.attempt, call.kind) for call in desk.calls if call.request_id == "bad"] == [
        (1, FailureKind.SERVER_ERROR), (2, FailureKind.OVERLOADED), (3, OK),
    ]  # fmt: skip
    assert desk.pool.stats["retries"] == 2


CALL_FAILURES = [
    pytest.param(completion("cut", "length"), FailureKind.TRUNCATED, 1, id="truncated"),
    pytest.param(completion(None, refusal="I'd rather not"), FailureKind.REFUSAL, 1, id="refusal"),
    pytest.param(completion("no", "content_filter"), FailureKind.CONTENT_FILTERED, 1, id="filtered"),
    pytest.param(response(200, b"<html>"), FailureKind.INVALID_RESPONSE, 2, id="not json"),
    pytest.param(error(429, retry_after_ms="1", x_should_retry="false"), FailureKind.RATE_LIMITED, 1, id="429"),
    pytest.param(error(503, retry_after_ms="5"), FailureKind.OVERLOADED, 3, id="503"),
    pytest.param(error(500), FailureKind.SERVER_ERROR, 3, id="500"),
    pytest.param(TimeoutError(), FailureKind.TIMEOUT, 3, id="timeout"),
    pytest.param(aiohttp.ServerDisconnectedError(), FailureKind.CONNECTION_ERROR, 3, id="lost"),
    pytest.param(error(409), FailureKind.CONFLICT, 3, id="409"),
    pytest.param(error(400), FailureKind.INVALID_REQUEST, 1, id="400"),
    pytest.param(error(400, "context_length_exceeded"), FailureKind.CONTEXT_LENGTH_EXCEEDED, 1, id="too long"),
    pytest.param(error(413), FailureKind.REQUEST_TOO_LARGE, 1, id="413"),
]


@pytest.mark.parametrize(("step", "kind", "tries"), CALL_FAILURES)
def test_one_failing_request_harms_no_other(step, kind, tries):
    """Each way to fail ends its own request with its kind, a sentence and its tries; the neighbour is answered (P7)."""
    script = scripted(bad=[step])
    with make_desk(script, max_attempts=3) as desk:
        results = desk.ask(["bad", "good"])
    assert kinds(results) == {"bad": kind, "good": OK}
    assert results["bad"].reason
    assert (results["bad"].attempts, script.attempts["bad"], script.attempts["good"]) == (tries, tries, 1)
    bad = [call for call in desk.calls if call.request_id == "bad"]
    assert [(call.kind, call.status) for call in bad] == [(kind, CallStatus.ERROR)] * tries
    assert (desk.ends[0].succeeded, desk.ends[0].failed, desk.ends[0].pending) == (1, 1, 0)


def test_a_failure_that_no_later_run_asks_again_has_the_ledgers_own_words():
    """The first run's dead letter and that of a rerun, which knows the ledger only, give the same reason (P8)."""
    script = scripted(a=[completion("cut", "length")], b=[error(400, None, "no such parameter: foo")])
    with make_desk(script) as desk:
        results = desk.ask(["a", "b"])
    for call in desk.calls:
        assert f'"message":"{results[call.request_id].reason}"' in call.error_json
    assert "max_output_tokens" in results["a"].reason


def test_a_key_that_a_provider_repeats_does_not_get_out():
    """Neither the record nor the reason holds it (P9)."""
    with make_desk(scripted(a=[error(400, None, f"bad header {KEY}")])) as desk:
        result = desk.ask(["a"])["a"]
    assert KEY not in f"{result} {desk.ledger}"
    assert "bad header" in result.reason


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
    with make_desk(scripted(a=[0.1]), max_in_flight=1) as desk:
        desk.ask(["a", "b"])
    waited = {call.request_id: call.waited_ms for call in desk.calls}
    assert waited["a"] < 90 <= waited["b"]


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
    assert took_s < 0.6
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


def test_redacted_columns_do_not_get_on_record():
    """The record shows the prompt with redacted fields and a reply without their values; the answer keeps its text."""
    from tests.unit.pool_builders import make_request
    from transforms.records.request import Prompt

    name = 'Zoë "Z" O\'Neill'
    request = make_request(name, shown_prompt=Prompt(None, (("user", "[redacted]"),)), redacted_values=(name,))
    with make_desk(Script(answer)) as desk:
        session = desk.pool.open()
        results = list(ends([*session.feed([(request, "c1")], Batch("b0", 1)), *session.drain()]))
    record = desk.calls[0]
    assert results[0].text == f"re: {name}"
    assert "Neill" not in record.request_json + record.response_json
    assert "re: [redacted]" in record.response_json


def test_two_sessions_at_once_get_each_its_own():
    """Two threads share one pool and its limits; neither sees the other's answers."""

    async def reply(sent):
        await asyncio.sleep(0.002)
        return completion(sent.name)

    script = Script(reply)
    with make_desk(script, max_in_flight=3) as desk:
        runs = [
            in_thread(lambda p=prefix: desk.ask(*[[f"{p}{g}.{n}" for n in range(4)] for g in range(10)]))
            for prefix in "ab"
        ]
        first, second = (run() for run in runs)
    assert {name[0] for name in first} == {"a"}
    assert {name[0] for name in second} == {"b"}
    assert len(first) == len(second) == 40
    assert script.peak == 3


def test_tokens_are_reserved_and_given_back():
    """With a token limit, a call that is not run gives its tokens back: the next is sent at once."""
    script = scripted(a=[error(400)])
    with make_desk(script, tokens_per_minute=60, max_in_flight=1) as desk:
        results = desk.ask(["a", "b"])
    assert kinds(results) == {"a": FailureKind.INVALID_REQUEST, "b": OK}
    assert script.sent[1].at - script.sent[0].at < 0.5


def test_every_record_is_a_call_or_an_end():
    """Calls are numbered on from what an earlier try of the bundle had recorded."""
    with make_desk(Script(answer)) as desk:
        session = desk.pool.open()
        batch = Batch("b0", 3, next_index=7, succeeded=1)
        assert len(list(ends([*session.feed(pairs(["a", "b"]), batch), *session.drain()]))) == 2
    assert [record.call_index for record in desk.ledger if isinstance(record, CallRecord)] == [7, 8]
    assert [(end.succeeded, end.failed) for end in desk.ends] == [(3, 0)]
