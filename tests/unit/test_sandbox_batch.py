"""The batch engine without HTTP: its clock, its lines, its flaws, its bill."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sandbox.batch_azure import AzureDialect
from pipelines.sandbox.batch_clock import BatchStatus, BatchTiming, Course, expiry_s, moment
from pipelines.sandbox.batch_engine import Batch, Desk, Part
from pipelines.sandbox.batch_events import EventLog, Gate
from pipelines.sandbox.batch_openai import OpenAIDialect
from pipelines.sandbox.batch_rows import Order
from pipelines.sandbox.batch_spool import Spool
from pipelines.sandbox.faults import FaultPlan, load_plan
from pipelines.sandbox.rehearsal import Admitted, Rehearsal
from pipelines.sandbox.routes import find_route
from tests.unit.sandbox_batches import CHAT, body_for, line_for, lines_for

TIMING = BatchTiming(validating_s=1, queue_s=2, duration_s=10)
COURSE = Course(
    accepted_s=100, checked_s=100.5, is_rejected=False, is_stuck=False, expire_at=None, expires_s=math.inf, cancel_s=None
)  # fmt: skip


@pytest.mark.parametrize(
    ("course", "now_s", "status", "share"),
    [
        pytest.param(COURSE, 100, "validating", 0, id="accepted"),
        pytest.param(COURSE, 101, "in_progress", 0, id="checked"),
        pytest.param(COURSE, 103, "in_progress", 0, id="end of the queue"),
        pytest.param(COURSE, 107.5, "in_progress", 0.5, id="half-way"),
        pytest.param(COURSE, 112, "finalizing", 1, id="all rows done"),
        pytest.param(COURSE, 113, "completed", 1, id="done"),
        pytest.param(replace(COURSE, checked_s=None), 1000, "validating", 0, id="still being checked"),
        pytest.param(replace(COURSE, checked_s=150), 150, "in_progress", 0, id="a long check moves all else"),
        pytest.param(replace(COURSE, is_rejected=True), 100.9, "validating", 0, id="not rejected yet"),
        pytest.param(replace(COURSE, is_rejected=True), 101, "rejected", 0, id="rejected"),
        pytest.param(replace(COURSE, is_stuck=True), 9999, "in_progress", 0.5, id="stuck"),
        pytest.param(replace(COURSE, expire_at=0.6), 200, "expired", 0.6, id="expires by the plan"),
        pytest.param(replace(COURSE, expires_s=107.5), 200, "expired", 0.5, id="expires by the clock"),
        pytest.param(replace(COURSE, expires_s=200), 300, "completed", 1, id="done before the window ends"),
        pytest.param(replace(COURSE, is_stuck=True, expires_s=200), 300, "expired", 0.5, id="stuck until it expires"),
        pytest.param(replace(COURSE, cancel_s=107.5), 108, "cancelling", 0.5, id="cancelling"),
        pytest.param(replace(COURSE, cancel_s=107.5), 108.5, "cancelled", 0.5, id="cancelled"),
        pytest.param(replace(COURSE, cancel_s=100.2), 102, "cancelled", 0, id="cancelled while validating"),
        pytest.param(replace(COURSE, cancel_s=100.2, is_rejected=True), 102, "cancelled", 0, id="cancelled, not rejected"),
        pytest.param(replace(COURSE, cancel_s=112.5), 113, "completed", 1, id="too late to cancel"),
    ],
)  # fmt: skip
def test_a_batch_goes_by_the_clock(course: Course, now_s: float, status: str, share: float) -> None:
    """Status and progress follow from what was decided and the time alone."""
    now = moment(course, TIMING, now_s)
    assert (now.status, now.share) == (status, pytest.approx(share))
    assert all(at_s <= now_s for at_s in now.times.values())


@given(st.floats(0, 30), st.floats(0, 30), st.sampled_from([None, 0.3, 1.0]), st.sampled_from([None, 104.0, 111.0]))
def test_progress_never_goes_back(first: float, second: float, expire_at: float | None, cancel_s: float | None) -> None:
    """The later moment has at least the share of the earlier one, and has been in all its states."""
    course = replace(COURSE, expire_at=expire_at, cancel_s=cancel_s)
    early, late = (moment(course, TIMING, 100 + offset) for offset in sorted((first, second)))
    assert early.share <= late.share
    assert early.times.items() <= late.times.items()


def test_batches_expire_after_a_day_or_never() -> None:
    """Without a window of the user's, Azure's batches go on for ever and the others end after 24 hours."""
    assert expiry_s(100, TIMING, expires=True) == 86_500
    assert expiry_s(100, TIMING, expires=False) == math.inf
    assert expiry_s(100, replace(TIMING, window_s=7), expires=False) == 107


@given(st.lists(st.text(max_size=9).map(lambda text: text.replace("\n", "")), max_size=9), st.booleans())
def test_a_spool_gives_its_lines_back(texts: list[str], ends: bool) -> None:
    """Lines are split at newlines only, each with the offset at which it can be read again."""
    lines = [text.encode("utf-8", "surrogatepass") + b"\xe2\x80\xa8\x0b" for text in texts]
    spool = Spool()
    spool.write(b"\n".join(lines) + (b"\n" if ends and lines else b""))
    assert [line for _, line in spool.lines()] == lines
    assert all(spool.read(offset, len(line)) == line for offset, line in spool.lines())


def _finished(
    data: bytes, faults: str = "", seed: int = 5, *, after: Callable[[Desk, Batch], Any] | None = None
) -> tuple[Desk, Batch]:
    """Run a batch of these lines to its end on a clock that jumps there."""
    now_s = [1000.0]
    desk = Desk(Rehearsal(load_plan(faults), seed, None, None), TIMING, lambda *_: None, lambda: now_s[0])
    spool = Spool()
    spool.write(data)

    async def live() -> Batch:
        batch = desk.accept(OpenAIDialect(), spool, Order(endpoint=CHAT, most_rows=100), "batch_")
        await desk.checked(batch)
        now_s[0] += 7.5
        if after:
            after(desk, batch)
        now_s[0] += 100
        return batch

    return desk, asyncio.run(live())


def _lines(desk: Desk, batch: Batch, part: Part = Part.ALL) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in desk.results(batch, part)]


@pytest.mark.parametrize("faults", ["", "wrong_json=0.3,truncation=0.3,content_filter=0.3", "refusal=1"])
def test_a_row_is_answered_as_in_real_time(faults: str) -> None:
    """The body of a result is the body of the real-time reply to the same request."""
    desk, batch = _finished(lines_for(30), faults)
    rehearsal = Rehearsal(load_plan(faults), 5, None, None)
    route = find_route("POST", CHAT, has_anthropic_version=False)
    lines = _lines(desk, batch, Part.OUTPUT)
    assert len(lines) == 30
    for line in lines:
        raw = orjson.dumps(body_for(int(line["custom_id"][2:])))
        admitted = rehearsal.judge(route, CHAT, "", {"authorization": "Bearer k"}, raw)
        assert isinstance(admitted, Admitted)
        assert route.api is not None
        reply = orjson.loads(orjson.dumps(route.api.reply(rehearsal.complete(admitted))))
        assert line["response"]["body"] | {"created": 0} == reply | {"created": 0}


def test_results_are_the_same_bytes_whenever_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result file is written once: what a second download shows does not depend on when it is made."""
    desk, batch = _finished(lines_for(3))
    first = list(desk.results(batch, Part.ALL))
    monkeypatch.setattr("pipelines.sandbox.rehearsal.time.time", lambda: 4e9)
    assert list(desk.results(batch, Part.ALL)) == first


def test_results_come_in_an_order_of_their_own() -> None:
    """Rows are shuffled, the same way each time, and in the file's order only when asked for."""
    orders = [
        [line["custom_id"] for line in _lines(*_finished(lines_for(20), faults))]
        for faults in ("", "", "batch_out_of_order=false")
    ]
    assert orders[0] == orders[1] != orders[2] == [f"r-{number}" for number in range(20)]
    assert sorted(orders[0]) == sorted(orders[2])
    two = [line["custom_id"] for line in _lines(*_finished(lines_for(2)))]
    assert two == ["r-1", "r-0"]


@pytest.mark.parametrize(
    ("faults", "good", "bad", "billed"),
    [
        pytest.param("", 20, 0, 20, id="nothing"),
        pytest.param("batch_missing=0.1", 18, 0, 18, id="missing"),
        pytest.param("batch_duplicate=0.1", 22, 0, 20, id="duplicate"),
        pytest.param("batch_unknown=0.1", 22, 0, 20, id="unknown"),
        pytest.param("batch_status_zero=0.1", 18, 2, 18, id="status zero"),
        pytest.param("batch_expire_at=0.6", 12, 8, 12, id="expired"),
        pytest.param("batch_expire_at=0.6,batch_missing=0.5", 6, 8, 6, id="expired, half of the rest missing"),
        pytest.param("server_error=1", 0, 20, 0, id="all failed"),
        pytest.param("empty_choices=1", 20, 0, 0, id="nothing answered, nothing paid"),
        pytest.param("hang=1", 20, 0, 20, id="a connection's fault is none of a row"),
    ],
)
def test_flaws_are_counted_and_billed(faults: str, good: int, bad: int, billed: int) -> None:
    """Each flaw comes as often as asked for; only a row whose answer can be read is paid."""
    desk, batch = _finished(lines_for(20), faults)
    assert len(_lines(desk, batch, Part.OUTPUT)) == good
    assert len(_lines(desk, batch, Part.ERROR)) == bad
    assert len(desk.billed(batch)) == len(set(desk.billed(batch))) == billed


def test_the_ids_of_flawed_results() -> None:
    """A duplicate repeats an id, an unknown one is nobody's, a missing one is gone; a single row is enough for each."""
    twice = Counter(line["custom_id"] for line in _lines(*_finished(lines_for(5), "batch_duplicate=0.01")))
    assert sorted(twice.values()) == [1, 1, 1, 1, 2]
    strange = {line["custom_id"] for line in _lines(*_finished(lines_for(5), "batch_unknown=0.01"))}
    assert len(strange - {f"r-{number}" for number in range(5)}) == 1
    assert len(_lines(*_finished(lines_for(5), "batch_missing=0.01"))) == 4


def test_a_malformed_line_is_no_json_and_harms_no_other() -> None:
    """So many lines as asked for can't be read; the others can."""
    desk, batch = _finished(lines_for(9), "batch_malformed_line=2")
    unread = 0
    for line in desk.results(batch, Part.OUTPUT):
        try:
            orjson.loads(line)
        except ValueError:
            unread += 1
    assert unread == 2
    assert len(desk.billed(batch)) == 7


@pytest.mark.parametrize(
    ("data", "code", "number"),
    [
        pytest.param(b"", "empty_file", None, id="nothing"),
        pytest.param(line_for(0) + b"\n{", "invalid_json_line", 2, id="no JSON"),
        pytest.param(line_for(0) + b"\n\n" + line_for(1), "invalid_json_line", 2, id="a blank line"),
        pytest.param(b"\xef\xbb\xbf" + line_for(0), "invalid_json_line", 1, id="a byte order mark"),
        pytest.param(line_for(0) + b"\n" + line_for(0), "duplicate_custom_id", 2, id="an id twice"),
        pytest.param(line_for(0) + b"\n" + line_for(1, model="n"), "model_mismatch", 2, id="another model"),
        pytest.param(line_for(0, "/v1/responses"), "mismatched_endpoint", 1, id="another endpoint"),
        pytest.param(line_for(0, messages=None), "missing_required_parameter", 1, id="no messages"),
        pytest.param(line_for(0, model="no-such-model"), "model_not_found", 1, id="no such model"),
        pytest.param(lines_for(101), "too_many_tasks", None, id="too many"),
    ],
)
def test_a_bad_line_rejects_the_batch(data: bytes, code: str, number: int | None) -> None:
    """The whole batch fails, with the line's number from 1; nothing runs and nothing is billed."""
    desk, batch = _finished(data)
    assert desk.view(batch).status is BatchStatus.REJECTED
    assert [(problem.code, problem.line) for problem in batch.problems] == [(code, number)]
    assert desk.view(batch).total == 0
    assert not _lines(desk, batch)
    assert not desk.billed(batch)


def test_a_cancelled_batch_keeps_what_was_done() -> None:
    """Half the rows have run when it is cancelled: they are answered and paid, the rest says it was cancelled."""
    desk, batch = _finished(lines_for(20), after=lambda desk, batch: desk.cancel(batch))
    assert desk.view(batch).status is BatchStatus.CANCELLED
    assert len(_lines(desk, batch, Part.OUTPUT)) == 10 == len(desk.billed(batch))
    assert {line["error"]["code"] for line in _lines(desk, batch, Part.ERROR)} == {"batch_cancelled"}
    assert not desk.cancel(batch)


def test_a_row_that_failed_can_be_tried_again() -> None:
    """A row that met a fault counts as a try, so that real time draws anew; one that went well does not count."""
    desk, batch = _finished(lines_for(40), "server_error=0.5")
    failed = {line["custom_id"] for line in _lines(desk, batch, Part.ERROR)}
    assert 10 < len(failed) < 30
    route = find_route("POST", CHAT, has_anthropic_version=False)
    for number in range(40):
        admitted = desk.rehearsal.judge_row(route, CHAT, "", {}, body_for(number))
        assert isinstance(admitted, Admitted)
        assert admitted.attempt == (2 if f"r-{number}" in failed else 1)


def test_azure_lines_become_the_path_of_their_url_family() -> None:
    """Dated chat goes below the deployment that the line names; the rest does not."""
    paths = {}
    for is_dated in (False, True):
        for url in ("/chat/completions", "/v1/responses"):
            asked = AzureDialect(is_dated=is_dated).read_row(line_for(1, url), Order(extra={"url": url, "query": "q"}))
            paths[is_dated, url] = getattr(asked, "path", asked)
    assert list(paths.values()) == [
        "/openai/v1/chat/completions",
        "/openai/v1/responses",
        "/openai/deployments/m/chat/completions",
        "/openai/responses",
    ]


def test_the_batch_section_of_a_plan() -> None:
    """Text and mappings say the same; unknown names are refused with the known ones."""
    text = load_plan("rate_limit=0.1,batch_lost_create=2,batch_expire_at=0.6,batch_gone,batch_unavailable=404")
    section = {"lost_create": 2, "expire_at": 0.6, "gone": True, "unavailable": 404}
    assert text == FaultPlan.model_validate({"rate_limit": 0.1, "batch": section})
    with pytest.raises(ValueError, match=r"batch\.lost: .*known are hold_upload, .*malformed_line"):
        load_plan("batch_lost=1")


def test_events_are_numbered_and_can_be_read_on() -> None:
    """What came after a number is given in order."""
    log = EventLog()
    for name in "abc":
        log.note(name, "openai", batch_id="b")
    assert [(event["seq"], event["event"]) for event in log.since(1)] == [(2, "b"), (3, "c")]
    log.clear()
    assert log.since(0) == []


def test_a_release_lets_go_only_who_waits() -> None:
    """Those waiting go on; who comes later waits for the next release."""

    async def live() -> list[int]:
        gate = Gate()
        first = [asyncio.create_task(gate.wait()) for _ in range(2)]
        await asyncio.sleep(0)
        released = [gate.release()]
        await asyncio.gather(*first)
        late = asyncio.create_task(gate.wait())
        await asyncio.sleep(0.01)
        assert not late.done()
        released.append(gate.release())
        await late
        return released

    assert asyncio.run(live()) == [2, 1]
