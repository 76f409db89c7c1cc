"""ReadAnswers: the ledger segments of earlier runs -> settled answers by request_id.

One element per segment is spread over the workers and read as a stream. Safe to retry: reading has no effect.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import REPAIRS
from transforms.records.request import Lane
from transforms.storage.ledger import pack_settled, read_answers


class ReadAnswersResult(NamedTuple):
    """main, repair: (request_id, packed SettledAnswer) of each lane; None when there are no segments."""

    main: pvalue.PCollection | None
    repair: pvalue.PCollection | None


class ReadAnswers(beam.PTransform):
    """Read what earlier runs of the job have settled.

    Args:
        segments: paths of the ledger segments, listed when the run began.
    """

    def __init__(self, segments: list[str]) -> None:
        super().__init__()
        self._segments = segments

    def expand(self, root: Any) -> Any:
        """Read each segment and tell the lanes apart."""
        if not self._segments:
            return ReadAnswersResult(None, None)
        settled = (
            root
            | "ListSegments" >> beam.Create(self._segments, reshuffle=False)
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
