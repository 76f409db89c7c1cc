"""JoinAnswers: crowd rows x ends of crowded requests -> ends that carry those rows.

Most rows travel with their request. Where very many rows ask the same, only MAX_RIDERS do; the others meet the
answer here, in portions of MAX_RIDERS, and go through SettleRows like the rest. A row whose request has no end
gets none here either, and conservation then names it (P1). Pure; safe to retry.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from transforms.records.answer import PendingRequest, RequestResult
from transforms.records.request import MAX_RIDERS
from transforms.records.row import AskedRow


class JoinAnswers(beam.PTransform):
    """Bring crowd rows and the ends of their requests together; gives RequestResult or PendingRequest with riders.

    Args:
        ends: PCollections of (request_id, RequestResult or PendingRequest).
    """

    def __init__(self, ends: list[pvalue.PCollection]) -> None:
        super().__init__()
        self._ends = ends

    def expand(self, crowd: pvalue.PCollection) -> Any:
        """Group by request and portion the rows."""
        joined = (*self._ends, crowd) | "FlattenWithRows" >> beam.Flatten()
        return joined | "GroupByRequest" >> beam.GroupByKey() | "PortionRows" >> beam.FlatMapTuple(_portion)


def _portion(
    _request_id: str, items: Iterable[AskedRow | RequestResult | PendingRequest]
) -> Iterator[RequestResult | PendingRequest]:
    end = next((item for item in items if not isinstance(item, AskedRow)), None)
    if end is None:
        return
    rows = (item for item in items if isinstance(item, AskedRow))
    while portion := tuple(islice(rows, MAX_RIDERS)):
        yield replace(end, riders=portion, crowded=False)
