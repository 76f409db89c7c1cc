"""ReuseAnswers: requests joined with the ledger: answered already, or fresh.

Equal requests become one here, whether they come from two rows of this run or from an earlier run; that is what
makes a second run send nothing (P8) and identical requests be paid once (P2). The rows that wait for a request
travel with it, up to MAX_RIDERS; where more rows ask the same, the rest leave as `crowd` and meet the answer in
JoinAnswers, so that no element grows without bound. Deterministic; safe to retry.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import ANSWERS, CROWD, Counters
from transforms.records.request import MAX_RIDERS, ModelRequest, pack, unpack
from transforms.records.row import AskedRow
from transforms.storage.ledger import better, is_settled, unpack_settled


class ReuseAnswersResult(NamedTuple):
    """fresh: (request_id, packed ModelRequest), each once; answers: ModelAnswer with reused=True; crowd: (request_id,
    AskedRow).
    """  # noqa: D205 - a list

    fresh: pvalue.PCollection
    answers: pvalue.PCollection
    crowd: pvalue.PCollection


class ReuseAnswers(beam.PTransform):
    """Answer requests from the ledger; pass on, once each, those it can't answer.

    Args:
        settled: PCollection of (request_id, packed SettledAnswer) of earlier runs; None when there were none.
    """

    def __init__(self, settled: pvalue.PCollection | None) -> None:
        super().__init__()
        self._settled = settled

    def expand(self, requests: pvalue.PCollection) -> Any:
        """Bring requests and answers of one id together."""
        if self._settled is not None:
            requests = (requests, self._settled) | "FlattenWithLedger" >> beam.Flatten()
        choose = beam.ParDo(_ChooseAnswerDoFn()).with_output_types(tuple[str, bytes])
        joined = (
            requests
            | "GroupByRequest" >> beam.GroupByKey()
            | "ChooseAnswer" >> choose.with_outputs(ANSWERS, CROWD, main="fresh")
        )
        return ReuseAnswersResult(joined["fresh"], joined[ANSWERS], joined[CROWD])


class _ChooseAnswerDoFn(beam.DoFn):
    def setup(self) -> None:
        self._counters = Counters("ReuseAnswers")

    def process(self, keyed: tuple[str, Iterable[bytes]]) -> Iterator[Any]:
        items = list(keyed[1])
        if len(items) == 1 and not is_settled(items[0]):
            # Most requests: asked once and never before. They pass as they are.
            self._counters.add("requests_fresh")
            yield keyed[0], items[0]
            return
        settled = [unpack_settled(item) for item in items if is_settled(item)]
        requests = [unpack(item) for item in items if not is_settled(item)]
        if not requests:
            return
        request, crowd = share_request(requests)
        for asked in crowd:
            yield pvalue.TaggedOutput(CROWD, (keyed[0], asked))
        if len(requests) > 1:
            self._counters.add("requests_shared")
        if settled:
            self._counters.add("requests_reused")
            yield pvalue.TaggedOutput(ANSWERS, reduce(better, settled).answer(request))
        else:
            self._counters.add("requests_fresh")
            yield keyed[0], pack(request)


def share_request(requests: list[ModelRequest]) -> tuple[ModelRequest, list[AskedRow]]:
    """Make equal requests one, with the first MAX_RIDERS rows; return it and the rows that must travel apart."""
    first = min(requests, key=_variables)
    riders = [asked for request in requests for asked in request.riders]
    crowd = riders[MAX_RIDERS:]
    crowded = bool(crowd) or any(request.crowded for request in requests)
    return replace(first, riders=tuple(riders[:MAX_RIDERS]), crowded=crowded), crowd


def _variables(request: ModelRequest) -> str:
    return request.hashes.variables
