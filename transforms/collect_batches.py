"""CollectBatches: BatchTurn -> ModelAnswers, and what a batch left without an answer.

Every terminal batch is harvested, whatever its state (P3); a batch that is left gives pending rows, one that was not
taken gives its requests back. Safe to retry: what was recorded before is taken from the ledger and not recorded
again.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._batch_collect import BatchCollector
from transforms._batch_desk import BatchDesk
from transforms._batch_read import Unanswered
from transforms._stage import CALLS, PENDING, Counters
from transforms.records.answer import PendingRequest
from transforms.records.batch import BatchTurn
from transforms.records.call import CallRecord
from transforms.records.run import CallSettings

REAL_TIME = "real_time"
BATCH = "batch"


class CollectBatchesResult(NamedTuple):
    """answers: ModelAnswer; pending: PendingRequest; calls: CallRecord; real_time, batch: (request_id, packed
    ModelRequest) of requests to be asked again that way.
    """  # noqa: D205 - a list

    answers: pvalue.PCollection
    pending: pvalue.PCollection
    calls: pvalue.PCollection
    real_time: pvalue.PCollection
    batch: pvalue.PCollection


class CollectBatches(beam.PTransform):
    """Fetch and read the results of batches.

    Args:
        settings: the run, the model and the rules for what fails.
    """

    def __init__(self, settings: CallSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, turns: pvalue.PCollection) -> Any:
        """Collect each batch."""
        collect = beam.ParDo(_CollectBatchDoFn(self._settings)).with_output_types(
            Any, pending=PendingRequest, calls=CallRecord, real_time=tuple[str, bytes], batch=tuple[str, bytes]
        )
        out = turns | "CollectBatch" >> collect.with_outputs(PENDING, CALLS, REAL_TIME, BATCH, main="answers")
        return CollectBatchesResult(out["answers"], out[PENDING], out[CALLS], out[REAL_TIME], out[BATCH])


class _CollectBatchDoFn(beam.DoFn):
    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._desk = BatchDesk(self._settings)
        self._collector = BatchCollector(self._desk)
        self._counters = Counters("CollectBatches")

    def process(self, turn: BatchTurn) -> Iterator[Any]:
        count = 0
        for item in self._collector.finish(turn):
            if isinstance(item, CallRecord):
                yield pvalue.TaggedOutput(CALLS, item)
                continue
            count += 1
            if isinstance(item, PendingRequest):
                yield pvalue.TaggedOutput(PENDING, item)
            elif isinstance(item, Unanswered):
                yield pvalue.TaggedOutput(BATCH if item.by_batch else REAL_TIME, (item.request_id, item.packed))
            else:
                yield item
        self._counters.add("requests_ended", count)

    def finish_bundle(self) -> None:
        self._desk.worker.end_bundle()

    def teardown(self) -> None:
        if hasattr(self, "_desk"):
            self._desk.release()
