"""The ledger gives back exactly what was appended, whatever a kill tore."""

import errno
import os
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.unit.storage_builders import RUN, make_call, make_ended, make_failed_call, make_opened
from transforms.records.call import CallType
from transforms.records.errors import InternalError
from transforms.records.failure import SETTLED, FailureKind
from transforms.storage import ledger, segment_writer
from transforms.storage.ledger_lines import encode


def _write(folder: Path, *records: Any) -> str:
    with ledger.SegmentWriter(str(folder / "answers"), RUN) as writer:
        for record in records:
            writer.append(record)
    return ledger.segments(str(folder), only_run=RUN)[-1]


def test_a_payload_that_looks_like_our_keys_changes_nothing(tmp_path: Path) -> None:
    """Keys of ours inside a payload or a text are escaped there and not taken for the record's own."""
    trap = ',"request_json":1,"error_json":"x",'
    record = make_call(provider_request_id=trap, request_json=trap, response_json=trap, text=trap)
    path = _write(tmp_path, record)
    (answer,) = ledger.read_answers(path)
    assert answer.text == trap
    assert list(ledger.read_segment(path)) == [record]


@pytest.mark.parametrize(
    ("error_json", "reason"),
    [
        pytest.param('{"kind":"refusal","message":"no"}', "no", id="message"),
        pytest.param(None, None, id="none"),
        pytest.param('{"sha256":"abc"}', None, id="hashed"),
        pytest.param("[1]", None, id="list"),
        pytest.param("not json", None, id="text"),
    ],
)
def test_a_settled_failure_keeps_its_reason(tmp_path: Path, error_json: str | None, reason: str | None) -> None:
    """The error's message is the reason, where audit settings let it be recorded."""
    path = _write(tmp_path, make_failed_call(0, FailureKind.REFUSAL, error_json=error_json))
    (answer,) = ledger.read_answers(path)
    assert answer.reason == reason


def test_segments_are_of_one_run_or_of_all_others(tmp_path: Path) -> None:
    """Listing goes by run id, and a ledger that does not exist has no segments."""
    for run in ("20260101T000000-000001", "20260101T000000-000002", "20260101T000000-000002"):
        with ledger.SegmentWriter(str(tmp_path / "answers"), run) as writer:
            writer.append(make_call())
    names = [Path(path).name.split(".")[0][-1] for path in ledger.segments(str(tmp_path))]
    assert names == ["1", "2", "2"]
    assert len(ledger.segments(str(tmp_path), only_run="20260101T000000-000002")) == 2
    assert len(ledger.segments(str(tmp_path), exclude_run="20260101T000000-000002")) == 1
    assert ledger.segments(str(tmp_path / "absent")) == []


def test_a_writer_that_appended_nothing_leaves_no_file(tmp_path: Path) -> None:
    """The segment is opened by the first record."""
    with ledger.SegmentWriter(str(tmp_path / "answers"), RUN) as writer:
        writer.sync()
    assert ledger.segments(str(tmp_path)) == []


def test_threads_share_a_segment_without_mixing_lines(tmp_path: Path) -> None:
    """Eight threads append two hundred records each; every one is read back once."""
    writer = ledger.SegmentWriter(str(tmp_path / "answers"), RUN)

    def work(first: int) -> None:
        for index in range(first, first + 200):
            writer.append(make_call(index, response_json="x" * (index * 7 % 3000)))

    threads = [threading.Thread(target=work, args=(first * 200,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    (path,) = ledger.segments(str(tmp_path))
    assert sorted(record.call_index for record in ledger.read_segment(path)) == list(range(1600))


def test_a_forked_child_writes_a_segment_of_its_own(tmp_path: Path) -> None:
    """Parent and child never share a file, even when the fork happens while the lock is held."""
    writer = ledger.SegmentWriter(str(tmp_path / "answers"), RUN)
    writer.append(make_call(0))
    with writer._lock:
        child = os.fork()
        if child == 0:
            writer.append(make_call(1))
            writer.close()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.append(make_call(2))
    writer.close()
    found = {tuple(record.call_index for record in ledger.read_segment(p)) for p in ledger.segments(str(tmp_path))}
    assert found == {(0, 2), (1,)}


@pytest.mark.parametrize(("number", "word"), [(errno.ENOSPC, "free disk space"), (errno.EIO, "check the disk")])
def test_a_failed_write_says_what_to_do_and_the_next_append_starts_a_new_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str
) -> None:
    """A line torn by a full disk stays the last of its segment, so nothing after it is lost."""
    writer = ledger.SegmentWriter(str(tmp_path / "answers"), RUN)
    writer.append(make_call(0))

    def fail_midway(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:100])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(segment_writer, "write_all", fail_midway)
        with pytest.raises(InternalError, match=word):
            writer.append(make_call(1))
    writer.append(make_call(2))
    writer.close()
    found = sorted(r.call_index for path in ledger.segments(str(tmp_path)) for r in ledger.read_segment(path))
    assert found == [0, 2]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b'{"type":"call","call_id"\n', id="cut"),
        pytest.param(b"[1,2]\n", id="not an object"),
        pytest.param(b'{"type":"riddle"}\n', id="unknown type"),
        pytest.param(b'{"type":"call","call_type":"LLM"}\n', id="fields absent"),
        pytest.param(encode(make_call()).replace(b'"ok"', b'"fine"'), id="unknown kind"),
    ],
)
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, broken: bytes) -> None:
    """Damage is never skipped: the error gives the file and the line."""
    path = Path(_write(tmp_path, make_call(0), make_call(1)))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1], broken, lines[2]]))
    with pytest.raises(InternalError, match=rf"{path.name}, line 3, is damaged"):
        list(ledger.read_segment(str(path)))


def test_fields_of_newer_versions_are_ignored(tmp_path: Path) -> None:
    """A line with keys we don't know is read as the record we do know."""
    path = Path(_write(tmp_path, make_call(0), make_opened()))
    lines = [orjson.loads(line) | {"mood": "good"} for line in path.read_bytes().splitlines()]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    assert list(ledger.read_segment(str(path))) == [make_call(0), make_opened()]
    assert len(list(ledger.read_answers(str(path)))) == 1


def test_a_segment_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A version beyond ours means that old readers can't make sense of it."""
    path = Path(_write(tmp_path, make_call(0)))
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2', 1))
    with pytest.raises(InternalError, match="newer Rowbeam"):
        list(ledger.read_segment(str(path)))


@pytest.mark.parametrize("kind", list(FailureKind))
def test_only_settled_llm_calls_are_reusable(tmp_path: Path, kind: FailureKind) -> None:
    """A call is reused when its kind is settled, and an OK one only with its text."""
    calls = [
        make_call(0, kind=kind),
        make_call(1, kind=kind, text=None),
        make_call(2, kind=kind, call_type=CallType.HTTP),
    ]
    found = [answer.request_id for answer in ledger.read_answers(_write(tmp_path, *calls))]
    bare = [] if kind is FailureKind.OK else ["r-1"]
    assert found == (["r-0", *bare] if kind in SETTLED else [])


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        pytest.param({"started_at_us": 9}, {"kind": FailureKind.REFUSAL, "started_at_us": 1}, id="ok before all"),
        pytest.param({"started_at_us": 1, "call_id": "z"}, {"started_at_us": 2, "call_id": "a"}, id="earliest"),
        pytest.param({"started_at_us": 1, "call_id": "a"}, {"started_at_us": 1, "call_id": "b"}, id="call id"),
    ],
)
def test_better_does_not_depend_on_order(winner: dict[str, Any], loser: dict[str, Any]) -> None:
    """Of two settled calls of one request, the same one is chosen whichever comes first."""
    one, other = make_call(**winner), make_call(**loser)
    assert ledger.better(one, other) is one
    assert ledger.better(other, one) is one


def test_recorded_batch_gives_what_an_earlier_try_settled(tmp_path: Path) -> None:
    """Only this run's records of this batch count; the next index comes after every call, failed ones too."""
    _write(
        tmp_path,
        make_opened(),
        make_call(0),
        make_failed_call(1, FailureKind.TIMEOUT, request_id="r-1"),
        make_failed_call(2, FailureKind.REFUSAL, request_id="r-2"),
        make_call(3, request_id="r-2"),
        make_call(7, batch_id="b2", request_id="r-9"),
    )
    answers, next_index = ledger.recorded_batch(str(tmp_path), RUN, "b1")
    assert {request: answer.call_id for request, answer in answers.items()} == {"r-0": "b1-000000", "r-2": "b1-000003"}
    assert next_index == 4
    assert ledger.recorded_batch(str(tmp_path), "20260101T000000-000000", "b1") == ({}, 0)


def test_money_keeps_its_digits(tmp_path: Path) -> None:
    """Decimals come back with the same value and the same number of places."""
    cost = Decimal("0.000000000000000100")
    (record,) = ledger.read_segment(_write(tmp_path, make_call(cost_usd=cost)))
    assert record.cost_usd.as_tuple() == cost.as_tuple()
    assert list(ledger.read_segment(_write(tmp_path / "x", make_ended()))) == [make_ended()]


def test_a_lone_surrogate_survives(tmp_path: Path) -> None:
    """A model may send half a character; the answer was paid for, so it is kept as it came."""
    record = make_call(text="half \ud83d of it", response_json='"\udc00"')
    path = _write(tmp_path, record, make_call(1))
    assert list(ledger.read_segment(path)) == [record, make_call(1)]
    assert next(iter(ledger.read_answers(path))).text == "half \ud83d of it"
