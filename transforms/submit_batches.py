"""SubmitBatches: BatchRef -> BatchTurn, each batch sent as far as limits allow.

Behind a Reshuffle, so that what is submitted is stable. A retried bundle finds in the ledger what its first try did
and sends nothing a second time: an intent is on disk before its create, and whoever finds an intent without a handle
looks for the batch in the provider's listing (P2). Batches that limits hold back leave as WAITING, too: PollBatches
sends them when earlier ones have drained.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._batch_board import board
from transforms._batch_desk import BatchDesk
from transforms._batch_send import BatchSender
from transforms._stage import CALLS, Counters
from transforms.records.batch import BatchRef, BatchTurn, Turn
from transforms.records.run import CallSettings
from transforms.storage.batch_entry import Phase


class SubmitBatchesResult(NamedTuple):
    """turns: BatchTurn, one per batch; calls: CallRecord of the exchanges."""

    turns: pvalue.PCollection
    calls: pvalue.PCollection


class SubmitBatches(beam.PTransform):
    """Submit staged batches.

    Args:
        settings: the run, the model and the limits.
    """

    def __init__(self, settings: CallSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, refs: pvalue.PCollection) -> Any:
        """Make what was staged stable, then submit."""
        submitted = (
            refs
            | "KeepStaged" >> beam.Reshuffle()
            | "SubmitBatch" >> beam.ParDo(_SubmitBatchDoFn(self._settings)).with_outputs(CALLS, main="turns")
        )
        return SubmitBatchesResult(submitted["turns"], submitted[CALLS])


class _SubmitBatchDoFn(beam.DoFn):
    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._desk = BatchDesk(self._settings)
        self._sender = BatchSender(self._desk)
        self._counters = Counters("SubmitBatches")

    def process(self, ref: BatchRef) -> Iterator[Any]:
        with self._desk.serving(ref) as entry:
            turn = BatchTurn(ref, Turn.WAITING)
            if entry.phase is Phase.STAGED:
                turn = self._sender.advance(ref, entry)
        board.turn(ref, turn)
        self._counters.add("batches_taken_up")
        for record in self._desk.take_records():
            yield pvalue.TaggedOutput(CALLS, record)
        yield replace(turn, next_index=self._desk.used(turn.ref))

    def finish_bundle(self) -> None:
        self._desk.worker.end_bundle()

    def teardown(self) -> None:
        if hasattr(self, "_desk"):
            self._desk.release()
