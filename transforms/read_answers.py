"""ReadAnswers: the ledger segments of earlier runs -> settled answers by request_id.

A worker lists them, so that the job's graph does not grow with its history; one element per segment is spread over the
workers and read as a stream. Safe to retry: reading has no effect, and earlier runs have ended.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import REPAIRS
from transforms.records.request import Lane
from transforms.storage.ledger import pack_settled, read_answers, segments


class ReadAnswersResult(NamedTuple):
    """main, repair: (request_id, packed SettledAnswer) of each lane; None when there are no segments."""

    main: pvalue.PCollection | None
    repair: pvalue.PCollection | None


class ReadAnswers(beam.PTransform):
    """Read what earlier runs of the job have settled.

    Args:
        ledger: the ledger's folder.
        run_id: this run, whose own segments are left out.
        is_first: the ledger held no other run's segments when the run began: then there is nothing to build.
    """

    def __init__(self, ledger: str, run_id: str, *, is_first: bool) -> None:
        super().__init__()
        self._ledger = ledger
        self._run_id = run_id
        self._is_first = is_first

    def expand(self, root: Any) -> Any:
        """List the segments, read each, and tell the lanes apart."""
        if self._is_first:
            return ReadAnswersResult(None, None)
        settled = (
            root
            | "NameLedger" >> beam.Create([self._ledger], reshuffle=False)
            | "ListSegments" >> beam.FlatMap(segments, exclude_run=self._run_id).with_output_types(str)
            | "SpreadSegments" >> beam.Reshuffle()
            | "ReadSegment"
            >> beam.ParDo(_ReadSegmentDoFn())
            .with_output_types(tuple[str, bytes], repairs=tuple[str, bytes])
            .with_outputs(REPAIRS, main="main")
        )
        return ReadAnswersResult(settled["main"], settled[REPAIRS])


class _ReadSegmentDoFn(beam.DoFn):
    def process(self, path: str) -> Iterator[Any]:
        for answer in read_answers(path):
            keyed = (answer.request_id, pack_settled(answer))
            yield keyed if answer.lane is Lane.MAIN else pvalue.TaggedOutput(REPAIRS, keyed)
