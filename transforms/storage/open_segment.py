"""The ledger segment of a process: a file that grows, or in a bucket an object every few seconds."""

from transforms.storage.bucket_segment import BucketSegment
from transforms.storage.objects import is_remote, join
from transforms.storage.segment_writer import SegmentWriter

#: Both take records by `append`, `extend` and `extend_encoded`, and have them safe when `sync` returns.
Segment = SegmentWriter | BucketSegment


def open_segment(ledger: str, run_id: str) -> Segment:
    """Return this process's segment of a run; nothing is there before its first record.

    Args:
        ledger: the ledger's folder.
        run_id: the run that makes the calls.
    """
    folder = join(ledger, "answers")
    return BucketSegment(folder, run_id) if is_remote(folder) else SegmentWriter(folder, run_id)
