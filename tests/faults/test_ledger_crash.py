"""SIGKILL at random moments loses no record whose append had returned (P4)."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from transforms.records.call import CallRecord
from transforms.storage.ledger import read_segment, segments

_ROOT = Path(__file__).parents[2]

_APPENDER = """
import os, sys
from tests.unit.storage_builders import RUN, make_call
from transforms.storage.ledger import SegmentWriter
writer = SegmentWriter(sys.argv[1], RUN)
for index in range(10**9):
    writer.append(make_call(index, response_json="x" * (index * 997 % 20_000)))
    os.write(1, b"%d\\n" % index)
"""


@pytest.mark.parametrize("wait_s", [random.Random(seed).uniform(0.0, 0.2) for seed in range(10)])
def test_every_reported_record_is_readable_after_a_kill(tmp_path: Path, wait_s: float) -> None:
    """A process appends as fast as it can and is killed; all it reported is there, and at most one record more."""
    process = subprocess.Popen(
        [sys.executable, "-c", _APPENDER, str(tmp_path / "answers")],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(_ROOT)},
    )
    reported = process.stdout.readline()
    time.sleep(wait_s)
    process.kill()
    rest, _ = process.communicate(timeout=30)
    # A kill may tear the report's last line too.
    whole = (reported + rest).rpartition(b"\n")[0].split(b"\n")
    last = int(whole[-1])
    (path,) = segments(str(tmp_path))
    records = list(read_segment(path))
    assert all(isinstance(record, CallRecord) for record in records)
    assert [record.call_index for record in records] == list(range(len(records)))
    assert last + 1 <= len(records) <= last + 2
