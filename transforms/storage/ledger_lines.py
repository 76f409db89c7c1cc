"""The lines of a ledger segment: records to JSON and back, exactly.

Each line is one JSON object with a `type`, as `transforms/records/call.py` describes. Unknown keys are ignored and
absent keys take their field's default, so that newer versions can add fields with a default.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from decimal import Decimal
from operator import itemgetter
from typing import Any

import orjson

from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallStatus, CallType, CostSource
from transforms.records.errors import InternalError
from transforms.records.failure import KINDS, FailureKind
from transforms.records.request import Lane
from transforms.storage.objects import open_read

#: Grows when older readers could no longer make sense of a segment; a new field does not make it grow.
SEGMENT_VERSION = 1
SEGMENT_SUFFIX = ".jsonl"

#: What a segment holds after its header line.
LedgerRecord = CallRecord | BatchOpened | BatchEnded

#: What `parse_line` and `decode` raise on a broken line: not JSON, a field absent, an unknown value.
BROKEN_LINE = (KeyError, TypeError, ValueError, ArithmeticError)

_CALL_TYPES = {member.value: member for member in CallType}
_STATUSES = {member.value: member for member in CallStatus}
_LANES = {member.value: member for member in Lane}
# `type` is the record's last field, so a line tells by its end what it is.
_CALL_END = b'"type":"call"}\n'
_Values = Callable[[dict[str, Any]], tuple[Any, ...]]
_COST_SOURCES = {member.value: member for member in CostSource}


def encode(record: LedgerRecord) -> bytes:
    """Return the record's line, newline included."""
    # A record's dict is written in half the time of the record, to the same bytes.
    fields_of = vars(record) if type(record) is CallRecord else record
    try:
        return orjson.dumps(fields_of, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # A lone surrogate, which models do send as an escape, is no UTF-8; ASCII JSON holds it.
        return json.dumps(asdict(record), default=str, separators=(",", ":")).encode("ascii") + b"\n"


def shared_fields(record: CallRecord, changing: Iterable[str]) -> dict[str, Any]:
    """Return a record's fields for `encode_like`: those that stand between two that change are one raw stretch.

    Args:
        record: like all those to be written in their shared fields.
        changing: the names of the fields that the others have otherwise.
    """
    names, shared, run = frozenset(changing), dict[str, Any](), dict[str, Any]()
    for name, value in (*vars(record).items(), (None, None)):
        if name is not None and name not in names:
            run[name] = value
            continue
        if run:
            first = next(iter(run))
            text = orjson.dumps(run, default=str)
            shared[first] = orjson.Fragment(text[len(orjson.dumps(first)) + 2 : -1])
            run = {}
        if name is not None:
            shared[name] = None
    return shared


def encode_like(shared: dict[str, Any], changes: dict[str, Any]) -> bytes:
    """Return the line of a record that has `changes` and shares all else, as `encode`, in two thirds of its time.

    Args:
        shared: of `shared_fields`.
        changes: every field that changes; no text with half a surrogate pair, and numbers and text only.
    """
    return orjson.dumps(shared | changes, option=orjson.OPT_APPEND_NEWLINE)


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the line's object; raises one of BROKEN_LINE when it isn't one."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = json.loads(line)
    if not isinstance(found, dict):
        raise TypeError(f"expected an object, found {type(found).__name__}")
    return found


def decode(found: dict[str, Any]) -> LedgerRecord:
    """Return the record a parsed line holds; changes `found`. Raises one of BROKEN_LINE."""
    return _DECODERS[found["type"]](found)


def settled_kind(found: dict[str, Any]) -> FailureKind:
    """Return the kind of a parsed call line, without building the record."""
    return KINDS[found["kind"]]


def lane_of(found: dict[str, Any]) -> Lane:
    """Return the lane of a parsed LLM call line, without building the record."""
    return _LANES[found["lane"]]


def decimal_or_none(text: str | None) -> Decimal | None:
    """Return the money a line holds as text."""
    return None if text is None else Decimal(text)


def read_objects(path: str, payloads: bool = True) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of each whole line after the header.

    Without payloads, calls come without request_json and response_json, which are most of a line: several times
    faster.

    Raises:
        InternalError: a line is no JSON object, the header is not ours, or a newer Rowbeam wrote it.
    """
    with open_read(path) as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                found = parse_line(line if payloads else _without_payloads(line))
            except BROKEN_LINE as error:
                raise broken_line(path, number, error) from error
            if number == 1:
                _check_header(path, found)
            else:
                yield number, found


def count_calls(path: str, take_other: Callable[[LedgerRecord], None]) -> int:
    """Count a segment's calls without reading them; hand every other record to `take_other`.

    Raises:
        InternalError: as `read_objects`.
    """
    calls = 0
    with open_read(path) as file:
        for number, line in enumerate(file, 1):
            if line.endswith(_CALL_END):
                calls += 1
            elif line.endswith(b"\n") and number > 1:
                try:
                    take_other(decode(parse_line(line)))
                except BROKEN_LINE as error:
                    raise broken_line(path, number, error) from error
    return calls


def _without_payloads(line: bytes) -> bytes:
    # Quotes inside a JSON string are escaped, so these bytes can only be the record's own keys.
    start = line.find(b',"request_json":')
    end = line.rfind(b',"error_json":')
    return line[:start] + line[end:] if 0 <= start < end else line


def _check_header(path: str, found: dict[str, Any]) -> None:
    version = found.get("version")
    if found.get("type") != "segment" or not isinstance(version, int):
        raise InternalError(f"{path} is not a ledger segment; move it out of the ledger")
    if version > SEGMENT_VERSION:
        raise InternalError(f"{path} was written by a newer Rowbeam (version {version}); run that one or newer")


def broken_line(path: str, number: int, error: Exception) -> InternalError:
    """Return the error to raise for a line that can't be understood."""
    return InternalError(
        f"ledger segment {path}, line {number}, is damaged ({type(error).__name__}: {error}); restore the file from "
        f"a backup, or move it away and pay again for the answers in it"
    )


def _call(found: dict[str, Any]) -> CallRecord:
    found["call_type"] = _CALL_TYPES[found["call_type"]]
    found["status"] = _STATUSES[found["status"]]
    found["kind"] = KINDS[found["kind"]]
    found["lane"] = None if found["lane"] is None else _LANES[found["lane"]]
    found["cost_source"] = _COST_SOURCES[found["cost_source"]]
    found["cost_usd"] = decimal_or_none(found["cost_usd"])
    found["finish_reasons"] = tuple(found["finish_reasons"])
    return _build(CallRecord, _CALL_VALUES, found)


def _opened(found: dict[str, Any]) -> BatchOpened:
    found["members"] = tuple((custom_id, request_id) for custom_id, request_id in found["members"])
    return _build(BatchOpened, _OPENED_VALUES, found)


def _ended(found: dict[str, Any]) -> BatchEnded:
    return _build(BatchEnded, _ENDED_VALUES, found)


def _values(record_class: type) -> _Values:
    return itemgetter(*(field.name for field in fields(record_class)))


def _build(record_class: Callable[..., Any], values: _Values, found: dict[str, Any]) -> Any:
    try:
        return record_class(*values(found))
    except KeyError:
        known = {field.name for field in fields(record_class)}  # type: ignore[arg-type]
        return record_class(**{name: value for name, value in found.items() if name in known})


_CALL_VALUES = _values(CallRecord)
_OPENED_VALUES = _values(BatchOpened)
_ENDED_VALUES = _values(BatchEnded)
_DECODERS: dict[str, Callable[[dict[str, Any]], LedgerRecord]] = {
    "call": _call,
    "batch": _opened,
    "batch_end": _ended,
}
