"""ReuseAnswers: requests joined with the ledger: answered already, or fresh.

Equal requests become one here, whether they come from two rows of this run or from an earlier run; that is what
makes a second run send nothing (P8) and identical requests be paid once (P2). The rows that wait for a request
travel with it, up to MAX_RIDERS; where more rows ask the same, the rest leave as `crowd` and meet the answer in
JoinAnswers, so that no element grows without bound. Deterministic; safe to retry.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import ANSWERS, CROWD, Counters
from transforms.records.request import MAX_RIDERS, ModelRequest
from transforms.records.row import AskedRow
from transforms.storage.ledger import SettledAnswer, better


class ReuseAnswersResult(NamedTuple):
    """fresh: ModelRequest, each once; answers: ModelAnswer with reused=True; crowd: (request_id, AskedRow)."""

    fresh: pvalue.PCollection
    answers: pvalue.PCollection
    crowd: pvalue.PCollection


class ReuseAnswers(beam.PTransform):
    """Answer requests from the ledger; pass on, once each, those it can't answer.

    Args:
        settled: PCollection of (request_id, SettledAnswer) of earlier runs; None when there were none.
    """

    def __init__(self, settled: pvalue.PCollection | None) -> None:
        super().__init__()
        self._settled = settled

    def expand(self, requests: pvalue.PCollection) -> Any:
        """Bring requests and answers of one id together."""
        if self._settled is not None:
            requests = (requests, self._settled) | "FlattenWithLedger" >> beam.Flatten()
        joined = (
            requests
            | "GroupByRequest" >> beam.GroupByKey()
            | "ChooseAnswer" >> beam.ParDo(_ChooseAnswerDoFn()).with_outputs(ANSWERS, CROWD, main="fresh")
        )
        return ReuseAnswersResult(joined["fresh"], joined[ANSWERS], joined[CROWD])


class _ChooseAnswerDoFn(beam.DoFn):
    def setup(self) -> None:
        self._counters = Counters("ReuseAnswers")

    def process(self, keyed: tuple[str, Iterable[ModelRequest | SettledAnswer]]) -> Iterator[Any]:
        first: ModelRequest | None = None
        settled: SettledAnswer | None = None
        riders: list[AskedRow] = []
        crowded = False
        for item in keyed[1]:
            if isinstance(item, SettledAnswer):
                settled = item if settled is None else better(settled, item)
                continue
            crowded |= item.crowded
            first = item if first is None or item.hashes.variables < first.hashes.variables else first
            for asked in item.riders:
                if len(riders) < MAX_RIDERS:
                    riders.append(asked)
                else:
                    crowded = True
                    yield pvalue.TaggedOutput(CROWD, (keyed[0], asked))
        if first is None:
            return
        if len(riders) > 1 or crowded:
            self._counters.add("requests_shared")
            first = replace(first, riders=tuple(riders), crowded=crowded)
        if settled is None:
            self._counters.add("requests_fresh")
            yield first
        else:
            self._counters.add("requests_reused")
            yield pvalue.TaggedOutput(ANSWERS, settled.answer(first))
