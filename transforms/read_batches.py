"""ReadBatches: the members of every batch in flight -> (request_id, mark), for ReuseAnswers.

One element per batch is spread over the workers and read as a stream. Safe to retry: reading has no effect.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from transforms.storage.batch_ledger import read_entry, read_members
from transforms.storage.ledger import pack_in_flight


class ReadBatches(beam.PTransform):
    """Read which requests batches of earlier runs hold.

    Args:
        ledger: the job's ledger.
        keys: batch keys of all batches in flight, listed when the run began.
    """

    def __init__(self, ledger: str, keys: list[str]) -> None:
        super().__init__()
        self._ledger = ledger
        self._keys = keys

    def expand(self, root: Any) -> Any:
        """Read each batch's members file."""
        read = beam.ParDo(_ReadMembersDoFn(self._ledger)).with_output_types(tuple[str, bytes])
        return (
            root
            | "ListBatches" >> beam.Create(self._keys, reshuffle=False)
            | "SpreadBatches" >> beam.Reshuffle()
            | "ReadMembers" >> read
        )


class _ReadMembersDoFn(beam.DoFn):
    def __init__(self, ledger: str) -> None:
        self._ledger = ledger

    def process(self, key: str) -> Iterator[tuple[str, bytes]]:
        mark = pack_in_flight(key)
        entry = read_entry(self._ledger, key)
        # What a cut file lacked would pass for fresh, and be paid for twice.
        request_count = None if entry is None else entry.staged.request_count
        for member in read_members(self._ledger, key, request_count):
            yield member.request_id, mark
