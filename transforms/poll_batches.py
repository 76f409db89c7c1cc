"""PollBatches: BatchTurn -> BatchTurn, each batch watched until it has ended or is left.

A bounded splittable DoFn: a batch that has to wait defers itself, so many wait side by side on one worker. Some
runners resume a deferred element at once, whatever delay was asked for, and on any worker. So the restriction's start
says when the next look is due, and how many calls of the batch are numbered: both go where the batch goes. A look that
comes too early sleeps a moment and defers again. What a look does is in the ledger; one that is repeated after a crash is just one look more.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.utils.timestamp import Duration

from transforms._batch_desk import BatchDesk
from transforms._batch_watch import BatchWatcher
from transforms._stage import CALLS, Counters
from transforms.records.batch import BatchTurn, Turn
from transforms.records.run import CallSettings

#: A position: milliseconds since the epoch, and in the lowest bits the number of calls, as far as it fits.
_CALL_BITS = 16
_MOST_CALLS = (1 << _CALL_BITS) - 1
#: After the last look: in the year 3084.
_END = 1 << 45 << _CALL_BITS
#: The longest a too early look sleeps, seconds: others wait behind it.
_NAP_S = 0.2


class PollBatchesResult(NamedTuple):
    """turns: BatchTurn (UNSENT, LEFT, ENDED), one per batch; calls: CallRecord of the exchanges."""

    turns: pvalue.PCollection
    calls: pvalue.PCollection


class PollBatches(beam.PTransform):
    """Watch batches until they end.

    Args:
        settings: the run, the model and the limits.
    """

    def __init__(self, settings: CallSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, turns: pvalue.PCollection) -> Any:
        """Poll each batch, all side by side."""
        polled = turns | "PollBatch" >> beam.ParDo(_PollBatchDoFn(self._settings)).with_outputs(CALLS, main="turns")
        return PollBatchesResult(polled["turns"], polled[CALLS])


class OneWatcherTracker(OffsetRestrictionTracker):
    """Lets a batch defer itself and refuses every other split.

    A runner that finds a look slow would hand the second half of the looks to another worker: two would then watch
    the batch, and both would see its end.
    """

    def try_split(self, fraction_of_remainder: float) -> Any:
        """Split at fraction 0, which is the deferral, and nowhere else."""
        return super().try_split(0) if fraction_of_remainder == 0 else None


class _Looks(RestrictionProvider):
    """The positions in time; the whole range belongs to whoever watches the batch."""

    def initial_restriction(self, element: BatchTurn) -> OffsetRange:  # noqa: ARG002 - Beam's signature
        return OffsetRange(0, _END)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OneWatcherTracker(restriction)

    def restriction_size(self, element: BatchTurn, restriction: OffsetRange) -> int:  # noqa: ARG002 - Beam's signature
        return 1

    def split(self, element: BatchTurn, restriction: OffsetRange) -> Iterator[OffsetRange]:  # noqa: ARG002 - likewise
        yield restriction


_LOOKS = beam.DoFn.RestrictionParam(_Looks())


class _PollBatchDoFn(beam.DoFn):
    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._desk = BatchDesk(self._settings)
        self._watcher = BatchWatcher(self._desk)
        self._counters = Counters("PollBatches")

    def process(self, turn: BatchTurn, tracker: Any = _LOOKS) -> Iterator[Any]:
        ref, start = turn.ref, tracker.current_restriction().start
        next_look_ms, calls = start >> _CALL_BITS, start & _MOST_CALLS
        wait_s = next_look_ms / 1000 - time.time()
        if wait_s > 0:
            time.sleep(min(wait_s, _NAP_S))
            tracker.defer_remainder(Duration(seconds=wait_s))
            return
        if not tracker.try_claim(start):
            return
        self._desk.resume(ref, max(turn.next_index, calls))
        if turn.turn is Turn.WAITING:
            turn, wait_s = self._watcher.step(ref)
            self._counters.add("looks")
            for record in self._desk.take_records():
                yield pvalue.TaggedOutput(CALLS, record)
        if turn.turn is Turn.WAITING:
            # What is claimed is not handed on: the rest begins with the next position.
            look_ms = max(next_look_ms + 1, round((time.time() + wait_s) * 1000))
            tracker.try_claim((look_ms << _CALL_BITS) + min(self._desk.used(ref), _MOST_CALLS) - 1)
            tracker.defer_remainder(Duration(seconds=wait_s))
            return
        tracker.try_claim(_END)
        yield replace(turn, next_index=self._desk.used(ref))

    def finish_bundle(self) -> None:
        self._desk.worker.end_bundle()

    def teardown(self) -> None:
        if hasattr(self, "_desk"):
            self._desk.release()
