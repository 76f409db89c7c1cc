"""The ledger's segments with records of any content, cut anywhere."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.storage_builders import RUN
from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallStatus, CallType, CostSource
from transforms.records.failure import SETTLED, FailureKind
from transforms.records.request import Lane
from transforms.records.usage import Usage
from transforms.storage import ledger

# Any text at all, lone surrogates included.
_ANY_TEXT = st.text(st.characters(), max_size=30)
_MAYBE_TEXT = st.none() | _ANY_TEXT
_COUNT = st.none() | st.integers(0, 2**62)
_SECONDS = st.floats(0, 1e9, allow_nan=False)
_MONEY = st.none() | st.decimals(0, 10**6, allow_nan=False, allow_infinity=False, places=18)

_CALLS = st.builds(
    CallRecord,
    **dict.fromkeys(("call_id", "run_id", "batch_id", "custom_id", "request_id", "root_request_id"), _ANY_TEXT),
    call_index=st.integers(0, 10**6),
    call_type=st.sampled_from(CallType),
    lane=st.sampled_from(Lane),
    attempt=st.integers(1, 100),
    status=st.sampled_from(CallStatus),
    kind=st.sampled_from(FailureKind),
    http_status=_COUNT,
    provider_request_id=_MAYBE_TEXT,
    started_at_us=st.integers(0, 2**60),
    latency_ms=_SECONDS,
    waited_ms=_SECONDS,
    request_json=_MAYBE_TEXT,
    response_json=_MAYBE_TEXT,
    error_json=_MAYBE_TEXT,
    provider_name=_ANY_TEXT,
    request_model=_ANY_TEXT,
    response_model=_MAYBE_TEXT,
    input_tokens=_COUNT,
    output_tokens=_COUNT,
    cache_read_input_tokens=_COUNT,
    cache_write_input_tokens=_COUNT,
    reasoning_output_tokens=_COUNT,
    finish_reasons=st.lists(_ANY_TEXT, max_size=3).map(tuple),
    cost_usd=_MONEY,
    cost_source=st.sampled_from(CostSource),
    cost_reason=_MAYBE_TEXT,
    prompt_sha256=_ANY_TEXT,
    template_sha256=_ANY_TEXT,
    variables_sha256=_ANY_TEXT,
    lookup_sha256=_MAYBE_TEXT,
    text=_MAYBE_TEXT,
    type=st.just("call"),
)
_OPENED = st.builds(
    BatchOpened,
    **dict.fromkeys(("batch_id", "batch_key", "run_id", "mode", "provider_name", "request_model"), _ANY_TEXT),
    submitted_at_us=st.integers(0, 2**60),
    members=st.lists(st.tuples(_ANY_TEXT, _ANY_TEXT), max_size=4).map(tuple),
    type=st.just("batch"),
)
_ENDED = st.builds(
    BatchEnded,
    **dict.fromkeys(("batch_id", "run_id", "status"), _ANY_TEXT),
    **{name: st.integers(0, 2**50) for name in ("ended_at_us", "succeeded", "failed", "pending")},
    type=st.just("batch_end"),
)


def _write(folder: Path, *records: Any) -> str:
    with ledger.SegmentWriter(str(folder / "answers"), RUN) as writer:
        for record in records:
            writer.append(record)
    return ledger.segments(str(folder), only_run=RUN)[-1]


@settings(max_examples=60, deadline=None)
@given(records=st.lists(_CALLS | _OPENED | _ENDED, max_size=6), cut=st.floats(0, 1))
def test_a_segment_cut_anywhere_gives_the_records_whose_line_is_whole(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], cut: float
) -> None:
    """Cut at any byte: what lies before comes back equal, and nothing else; whole, all of it does."""
    if not records:
        return
    path = Path(_write(tmp_path_factory.mktemp("ledger"), *records))
    assert list(ledger.read_segment(str(path))) == records
    whole = path.read_bytes()
    kept = whole[: round(cut * len(whole))]
    path.write_bytes(kept)
    assert list(ledger.read_segment(str(path))) == records[: max(0, kept.count(b"\n") - 1)]


def _settles(record: CallRecord) -> bool:
    is_answer = record.kind in SETTLED and (record.text is not None or record.kind is not FailureKind.OK)
    return record.call_type is CallType.LLM and is_answer


@settings(max_examples=60, deadline=None)
@given(records=st.lists(_CALLS, min_size=1, max_size=6))
def test_read_answers_agrees_with_reading_whole_records(
    tmp_path_factory: pytest.TempPathFactory, records: list[CallRecord]
) -> None:
    """The fast path skips payloads, and yields what settles a request for good, with the record's own values."""
    path = _write(tmp_path_factory.mktemp("ledger"), *records)
    answers = list(ledger.read_answers(path))
    expected = [record for record in records if _settles(record)]
    assert len(answers) == len(expected)
    for answer, record in zip(answers, expected, strict=True):
        for name in (
            "request_id", "kind", "text", "call_id", "run_id", "attempt", "started_at_us", "response_model",
            "cost_usd", "lane",
        ):  # fmt: skip
            assert getattr(answer, name) == getattr(record, name)
        assert answer.usage == Usage(
            record.input_tokens,
            record.output_tokens,
            record.cache_read_input_tokens,
            record.cache_write_input_tokens,
            record.reasoning_output_tokens,
        )
