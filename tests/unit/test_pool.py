"""providers/pool.py and session.py over a scripted transport: answers, retries, limits, order."""

import asyncio
import threading
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
from tests.unit.pool_scripts import answer, scripted
from transforms.providers.session import Batch
from transforms.records.call import CallRecord, CallStatus, CostSource
from transforms.records.failure import FailureKind

OK = FailureKind.OK


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch):
    """Own waits are drawn from zero up; draw zero."""
    monkeypatch.setattr("transforms.providers.pool.random", SimpleNamespace(random=lambda: 0.0))


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


def test_every_record_is_a_call_or_an_end():
    """Calls are numbered on from what an earlier try of the bundle had recorded."""
    with make_desk(Script(answer)) as desk:
        session = desk.pool.open()
        batch = Batch("b0", 3, next_index=7, succeeded=1)
        assert len(list(ends([*session.feed(pairs(["a", "b"]), batch), *session.drain()]))) == 2
    assert [record.call_index for record in desk.ledger if isinstance(record, CallRecord)] == [7, 8]
    assert [(end.succeeded, end.failed) for end in desk.ends] == [(3, 0)]
