"""A ledger segment in a bucket: what `sync` has returned for is there, once, in order."""

import os
import threading
import time

import pytest

from tests.unit.batch_outputs import make_opened
from transforms.records.errors import InternalError
from transforms.storage import gcs
from transforms.storage.bucket_segment import BucketSegment
from transforms.storage.ledger import read_segment, segments

_LEDGER = "gs://bucket/out/ledger"


def _record(number):
    return make_opened(batch_id=f"b{number}")


def _ids():
    return [record.batch_id for path in segments(_LEDGER) for record in read_segment(path)]


def test_each_sync_makes_an_object_of_what_came_since(bucket):
    """In order, readable as any segment; nothing to write makes none."""
    with BucketSegment(f"{_LEDGER}/answers", "run-1", flush_s=60) as segment:
        segment.append(_record(0))
        segment.extend([_record(1), _record(2)])
        assert bucket.names() == []
        segment.sync()
        assert _ids() == ["b0", "b1", "b2"]
        segment.sync()
        assert len(bucket.names()) == 1
        segment.append(_record(3))
    assert _ids() == ["b0", "b1", "b2", "b3"]
    assert len(bucket.names()) == 2
    assert {name.split(".")[0] for name in bucket.names()} == {"out/ledger/answers/run-1"}


def test_what_nobody_syncs_is_written_soon(bucket):
    """The thread does it, so that a dying worker loses seconds."""
    segment = BucketSegment(f"{_LEDGER}/answers", "run-1", flush_s=0.05)
    segment.append(_record(0))
    until = time.monotonic() + 20
    while not bucket.names():
        assert time.monotonic() < until
        time.sleep(0.01)
    segment.append(_record(1))
    segment.close()
    assert _ids() == ["b0", "b1"]


def test_a_refused_object_goes_again_as_it_was(bucket):
    """Whoever syncs is told; nothing is lost and nothing is there twice."""
    segment = BucketSegment(f"{_LEDGER}/answers", "run-1", flush_s=60)
    segment.append(_record(0))
    bucket.refusal = 403
    for _ in range(2):
        with pytest.raises(InternalError, match=r"grant this account .* run the same job again"):
            segment.sync()
    segment.append(_record(1))
    bucket.refusal = None
    segment.close()
    assert _ids() == ["b0", "b1"]


def test_an_object_whose_reply_was_lost_for_good_is_not_doubled(bucket, monkeypatch):
    """It is written again under its name, with its bytes."""
    segment = BucketSegment(f"{_LEDGER}/answers", "run-1", flush_s=60)
    monkeypatch.setattr(gcs, "_retry", lambda: None)
    segment.append(_record(0))
    bucket.lost_replies = 1
    with pytest.raises(InternalError, match="can't be reached"):
        segment.sync()
    segment.append(_record(1))
    segment.close()
    assert _ids() == ["b0", "b1"]


def test_many_threads_share_a_segment(bucket):
    """Every record once, each thread's in its order."""

    def work(first):
        for number in range(first, first + 200):
            segment.append(_record(number))

    with BucketSegment(f"{_LEDGER}/answers", "run-1", flush_s=0.01) as segment:
        threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 1600, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ids = [int(name[1:]) for name in _ids()]
    assert sorted(ids) == list(range(1600))
    assert all(
        [one for one in ids if one // 200 == part] == list(range(part * 200, part * 200 + 200)) for part in range(8)
    )


def test_a_fork_writes_its_own_and_not_its_parents(bucket):
    """Each process writes what it took."""
    segment = BucketSegment(f"{_LEDGER}/answers", "run-1", flush_s=60)
    segment.append(_record(0))
    pid = os.fork()
    if pid == 0:
        try:
            segment.append(_record(1))
            segment.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert _ids() == ["b1"]
    segment.close()
    assert sorted(_ids()) == ["b0", "b1"]
