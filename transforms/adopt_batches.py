"""AdoptBatches: requests that a batch of an earlier run holds -> BatchRef of that batch.

Every batch in flight is adopted, also one of which this run asks nothing any more: its results are paid for (P3).
Nothing is sent here. Safe to retry: the same requests give the same file.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import Counters
from transforms.records.batch import BatchRef
from transforms.storage.asked_file import AskedWriter, asked_path
from transforms.storage.batch_ledger import read_entry
from transforms.storage.objects import ensure_folder


class AdoptBatches(beam.PTransform):
    """Give each batch in flight this run's requests of it.

    Args:
        ledger: the job's ledger.
        asked_folder: where this run's own requests of each batch go.
        keys: batch keys of all batches in flight, listed when the run began.
    """

    def __init__(self, ledger: str, asked_folder: str, keys: list[str]) -> None:
        super().__init__()
        self._ledger = ledger
        self._asked_folder = asked_folder
        self._keys = keys

    def expand(self, waiting: pvalue.PCollection) -> Any:
        """Bring each batch and its requests together. Input: (batch_key, (request_id, packed ModelRequest))."""
        all_keys = waiting.pipeline | "ListBatches" >> beam.Create([(key, None) for key in self._keys], reshuffle=False)
        adopt = beam.ParDo(_AdoptBatchDoFn(self._ledger, self._asked_folder)).with_output_types(BatchRef)
        return (
            (waiting, all_keys)
            | "FlattenBatches" >> beam.Flatten()
            | "GroupByBatch" >> beam.GroupByKey()
            | "AdoptBatch" >> adopt
        )


class _AdoptBatchDoFn(beam.DoFn):
    def __init__(self, ledger: str, asked_folder: str) -> None:
        self._ledger = ledger
        self._asked_folder = asked_folder

    def setup(self) -> None:
        self._counters = Counters("AdoptBatches")

    def process(self, keyed: tuple[str, Iterable[tuple[str, bytes] | None]]) -> Iterator[BatchRef]:
        key, requests = keyed
        ensure_folder(self._asked_folder)
        path = asked_path(self._asked_folder, key)
        writer = AskedWriter(path)
        try:
            for request in requests:
                if request is not None:
                    writer.add(*request)
            writer.close()
        except BaseException:
            writer.discard()
            raise
        entry = read_entry(self._ledger, key)
        if entry is not None:
            self._counters.add("batches_adopted")
            yield entry.staged.ref(path, is_adopted=True)
