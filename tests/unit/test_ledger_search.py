"""Finding single records of a run in its ledger."""

from pathlib import Path

import pytest

from tests.unit.cli_outputs import RUN_1, RUN_2, make_call, request_id
from transforms.records.call import CallRecord
from transforms.records.errors import InternalError
from transforms.storage.ledger import SegmentWriter, segments
from transforms.storage.ledger_search import find_records


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Return a ledger of two runs with three calls."""
    for run_id, names in ((RUN_1, ("q1", "q2")), (RUN_2, ("q1",))):
        with SegmentWriter(str(tmp_path / "answers"), run_id) as segment:
            segment.extend([make_call(place, name, run_id) for place, name in enumerate(names)])
    return tmp_path


def test_only_the_records_that_hold_the_text_are_found(ledger: Path) -> None:
    """Of the run that was asked for, and no other."""
    found = list(find_records(str(ledger), RUN_1, request_id("q1")))
    assert [(type(one), one.call_id) for one in found if isinstance(one, CallRecord)] == [(CallRecord, "b1-000000")]
    assert list(find_records(str(ledger), RUN_1, "nothing")) == []
    assert list(find_records(str(ledger), RUN_1, request_id("q1"), '"call_type":"HTTP"')) == []


def test_a_torn_last_line_is_left_out(ledger: Path) -> None:
    """What a kill cut off is no record."""
    (path,) = map(Path, segments(str(ledger), only_run=RUN_2))
    path.write_bytes(path.read_bytes()[:-1])
    assert list(find_records(str(ledger), RUN_2, request_id("q1"))) == []


def test_a_damaged_line_is_named(ledger: Path) -> None:
    """File and line are told."""
    (path,) = map(Path, segments(str(ledger), only_run=RUN_2))
    path.write_bytes(path.read_bytes().replace(b'"attempt":1', b'"attempt":}'))
    with pytest.raises(InternalError, match="line 2, is damaged"):
        list(find_records(str(ledger), RUN_2, request_id("q1")))
