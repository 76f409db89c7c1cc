"""The answers ledger: call records are on disk before a later stage sees an answer (P4), and found again (P2, P3, P8).

Written by `SegmentWriter`, one segment per process in `ledger/answers/`; read back here, for reuse and for audit. A
last line that a kill tore is left out; every record whose `append` had returned is there. Surviving a power cut takes
`SegmentWriter.sync`.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import orjson

from transforms.records.answer import ModelAnswer
from transforms.records.call import CallRecord, CallType
from transforms.records.failure import KINDS, SETTLED, FailureKind
from transforms.records.request import Lane, ModelRequest
from transforms.records.usage import Usage
from transforms.storage.ledger_lines import (
    BROKEN_LINE,
    SEGMENT_SUFFIX,
    LedgerRecord,
    broken_line,
    decimal_or_none,
    decode,
    lane_of,
    read_objects,
    settled_kind,
)
from transforms.storage.objects import join, list_files
from transforms.storage.segment_writer import SegmentWriter

__all__ = [
    "LedgerRecord",
    "SegmentWriter",
    "SettledAnswer",
    "better",
    "in_flight_batch",
    "is_settled",
    "pack_in_flight",
    "pack_settled",
    "read_answers",
    "read_segment",
    "recorded_batch",
    "segments",
    "settled_call",
    "unpack_settled",
]


# A pickle begins with its own protocol mark, never with this.
_SETTLED_MARK = b"settled:"
_IN_FLIGHT_MARK = b"in flight:"
_LLM = CallType.LLM
_OK = FailureKind.OK
_USAGE = itemgetter(*(field.name for field in fields(Usage)))
_ANSWER = itemgetter(
    "request_id", "text", "call_id", "run_id", "attempt", "started_at_us", "response_model", "cost_usd", "error_json"
)


@dataclass(frozen=True, slots=True)
class SettledAnswer:
    """What reuse needs of a call that settled its request.

    Attributes:
        text: the answer's text; never None when kind is OK.
        lane: whether the request was a row's first question or a repair.
        reason: the recorded error's message; None when there was none, or audit settings left it out.
    """

    request_id: str
    kind: FailureKind
    text: str | None
    call_id: str
    run_id: str
    attempt: int
    started_at_us: int
    response_model: str | None
    usage: Usage
    cost_usd: Decimal | None
    reason: str | None
    lane: Lane

    def answer(self, request: ModelRequest) -> ModelAnswer:
        """Return it as the answer of `request`."""
        return ModelAnswer(
            asked=request,
            kind=self.kind,
            text=self.text,
            reason=self.reason,
            attempts=self.attempt,
            call_id=self.call_id,
            run_id=self.run_id,
            reused=True,
            response_model=self.response_model,
            usage=self.usage,
            cost_usd=self.cost_usd,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat, see records/request.py."""
        return _settled, (
            self.kind.value,
            self.usage.flat(),
            self.lane is Lane.REPAIR,
            self.request_id,
            self.text,
            self.call_id,
            self.run_id,
            self.attempt,
            self.started_at_us,
            self.response_model,
            self.cost_usd,
            self.reason,
        )


def pack_settled(settled: SettledAnswer) -> bytes:
    """Return it as bytes that `is_settled` tells from a packed ModelRequest."""
    return _SETTLED_MARK + pickle.dumps(settled, pickle.HIGHEST_PROTOCOL)


def is_settled(packed: bytes) -> bool:
    """Say whether bytes come from `pack_settled`."""
    return packed.startswith(_SETTLED_MARK)


def unpack_settled(packed: bytes) -> SettledAnswer:
    """Return the answer of `pack_settled`."""
    settled: SettledAnswer = pickle.loads(packed[len(_SETTLED_MARK) :])  # noqa: S301 - packed in this pipeline
    return settled


def pack_in_flight(batch_key: str) -> bytes:
    """Return the mark of a request that a batch in flight holds; neither a packed request nor a settled answer."""
    return _IN_FLIGHT_MARK + batch_key.encode()


def in_flight_batch(packed: bytes) -> str | None:
    """Return the batch key of a mark, or None for anything else."""
    return packed.removeprefix(_IN_FLIGHT_MARK).decode() if packed.startswith(_IN_FLIGHT_MARK) else None


def _settled(kind: str, usage: tuple[Any, ...], is_repair: bool, *rest: Any) -> SettledAnswer:
    request_id, text, call_id, run_id, attempt, started_at_us, response_model, cost_usd, reason = rest
    return SettledAnswer(
        request_id,
        KINDS[kind],
        text,
        call_id,
        run_id,
        attempt,
        started_at_us,
        response_model,
        Usage(*usage),
        cost_usd,
        reason,
        Lane.REPAIR if is_repair else Lane.MAIN,
    )


def segments(ledger_folder: str, exclude_run: str | None = None, only_run: str | None = None) -> list[str]:
    """Return the paths of the ledger's segments, sorted; of all runs but one, or of one run."""
    return [
        path
        for path in list_files(_answers_folder(ledger_folder), SEGMENT_SUFFIX)
        if (only_run is None or _run_of(path) == only_run) and (exclude_run is None or _run_of(path) != exclude_run)
    ]


def read_segment(path: str) -> Iterator[LedgerRecord]:
    """Yield the records of a segment in the order they were written, in flat memory.

    A last line without its newline was torn by a kill and is left out.

    Raises:
        InternalError: another line is broken, or a newer Rowbeam wrote the segment.
    """
    for number, found in read_objects(path):
        try:
            record = decode(found)
        except BROKEN_LINE as error:
            raise broken_line(path, number, error) from error
        yield record


def read_answers(path: str) -> Iterator[SettledAnswer]:
    """Yield what can be reused of a segment: one item per LLM call that settled its request for good.

    Raises:
        InternalError: as `read_segment`.
    """
    for number, found in read_objects(path, payloads=False):
        answer = _answer(path, number, found)
        if answer is not None:
            yield answer


def recorded_batch(ledger_folder: str, run_id: str, batch_id: str) -> tuple[dict[str, SettledAnswer], int]:
    """Return what an earlier try of a batch left: the best answer of each settled request, and the next call_index.

    Reads all of the run's segments, those that other processes are writing included.

    Raises:
        InternalError: as `read_segment`.
    """
    answers: dict[str, SettledAnswer] = {}
    next_index = 0
    for path in segments(ledger_folder, only_run=run_id):
        for number, found in read_objects(path, payloads=False):
            if found.get("batch_id") != batch_id or found.get("type") != "call":
                continue
            next_index = max(next_index, found["call_index"] + 1)
            answer = _answer(path, number, found)
            if answer is not None:
                answers[answer.request_id] = better(answers.get(answer.request_id, answer), answer)
    return answers, next_index


_Settled = TypeVar("_Settled", CallRecord, SettledAnswer)


def better(one: _Settled, other: _Settled) -> _Settled:
    """Choose between two settled calls of one request, whatever their order: OK first, then the earliest."""
    return min(one, other, key=_preference)


def _preference(record: CallRecord | SettledAnswer) -> tuple[bool, int, str]:
    return record.kind is not _OK, record.started_at_us, record.call_id


def _can_be_reused(kind: FailureKind, text: str | None) -> bool:
    return kind in SETTLED and (text is not None or kind is not _OK)


def settled_call(found: dict[str, Any]) -> SettledAnswer | None:
    """Return what reuse needs of a parsed line, or None where it settled nothing. Raises one of BROKEN_LINE."""
    if found.get("type") != "call" or found.get("call_type") != _LLM:
        return None
    kind = settled_kind(found)
    return _settled_answer(kind, found) if _can_be_reused(kind, found["text"]) else None


def _answer(path: str, number: int, found: dict[str, Any]) -> SettledAnswer | None:
    try:
        return settled_call(found)
    except BROKEN_LINE as error:
        raise broken_line(path, number, error) from error


def _settled_answer(kind: FailureKind, found: dict[str, Any]) -> SettledAnswer:
    request_id, text, call_id, run_id, attempt, started_at_us, response_model, cost, error_json = _ANSWER(found)
    return SettledAnswer(
        request_id,
        kind,
        text,
        call_id,
        run_id,
        attempt,
        started_at_us,
        response_model,
        Usage(*_USAGE(found)),
        decimal_or_none(cost),
        None if error_json is None else _message(error_json),
        lane_of(found),
    )


def _message(error_json: str) -> str | None:
    try:
        message = orjson.loads(error_json)["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return None
    return message if isinstance(message, str) else None


def _answers_folder(ledger_folder: str) -> str:
    return join(ledger_folder, "answers")


def _run_of(path: str) -> str:
    return Path(path).name.split(".", 1)[0]
