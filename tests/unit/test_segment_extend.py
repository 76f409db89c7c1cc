"""Many records by one write are as safe in the ledger as one by one."""

import errno
import os
from pathlib import Path

import pytest

from tests.unit.storage_builders import RUN, make_call
from transforms.records.errors import InternalError
from transforms.storage import ledger, segment_writer


def _indexes(folder: Path) -> list[list[int]]:
    return sorted([r.call_index for r in ledger.read_segment(path)] for path in ledger.segments(str(folder)))


def test_records_written_together_are_read_as_those_written_alone(tmp_path: Path) -> None:
    """The same lines in the same order, on disk when extend returns, before anything is synced or closed."""
    alone = ledger.SegmentWriter(str(tmp_path / "alone" / "answers"), RUN)
    together = ledger.SegmentWriter(str(tmp_path / "together" / "answers"), RUN)
    records = [make_call(number) for number in range(5)]
    for record in records:
        alone.append(record)
    together.append(records[0])
    together.extend(records[1:4])
    together.extend(records[4:])
    (one,), (other,) = (ledger.segments(str(tmp_path / name)) for name in ("alone", "together"))
    assert list(ledger.read_segment(other)) == list(ledger.read_segment(one)) == records


def test_no_records_leave_no_file(tmp_path: Path) -> None:
    """A process that records nothing leaves no segment."""
    with ledger.SegmentWriter(str(tmp_path / "answers"), RUN) as writer:
        writer.extend([])
    assert ledger.segments(str(tmp_path)) == []


def test_a_write_that_was_cut_keeps_its_first_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full disk or a kill leaves of it is whole lines and a torn one, which is the last of its segment."""
    writer = ledger.SegmentWriter(str(tmp_path / "answers"), RUN)
    writer.append(make_call(0))

    def fail_midway(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: data.index(b"\n") + 100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(segment_writer, "write_all", fail_midway)
        with pytest.raises(InternalError, match="free disk space"):
            writer.extend([make_call(1), make_call(2), make_call(3)])
    writer.extend([make_call(4), make_call(5)])
    writer.close()
    assert _indexes(tmp_path) == [[0, 1], [4, 5]]
