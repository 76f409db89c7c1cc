"""Records that cross a shuffle pickle as one flat tuple, and come back equal."""

import pickle
from typing import Any

import pytest

from transforms.records.answer import PendingRequest
from transforms.records.failure import DeadLetter, FailureKind, Stage
from transforms.records.row import AskedRow, SourceRow

_ASKED = AskedRow(SourceRow("a", {"text": "good"}, "a.csv", 2, "c" * 64), "v" * 64)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(
            PendingRequest("r", "no money", FailureKind.QUOTA_EXHAUSTED, (_ASKED, _ASKED), True), id="refused"
        ),
        pytest.param(PendingRequest("r", "dry run: not sent", None), id="unsent"),
        pytest.param(
            DeadLetter(
                "a", Stage.CALL, FailureKind.TIMEOUT, "no reply", 3, True, "a.csv", 2, {"id": 1}, "r", "c", "run"
            ),
            id="dead letter",
        ),
        pytest.param(
            DeadLetter("b", Stage.READ, FailureKind.MALFORMED_ROW, "bad", 0, False, "a.csv", 3, "1,2,"), id="raw row"
        ),
    ],
)
def test_a_record_comes_back_equal(record: Any) -> None:
    """Kind and stage are the enums' own members again, and no record is pickled by its fields' names."""
    packed = pickle.dumps(record, pickle.HIGHEST_PROTOCOL)
    copy = pickle.loads(packed)  # noqa: S301 - our own bytes
    assert copy == record
    assert (type(copy.kind), copy.kind) == (type(record.kind), record.kind)
    assert b"reason" not in packed
