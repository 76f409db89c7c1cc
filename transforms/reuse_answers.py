"""ReuseAnswers: requests joined with the ledger: answered already, or fresh.

Equal requests become one here, whether they come from two rows of this run or from an earlier run; that is what
makes a second run send nothing (P8) and identical requests be paid once (P2). Deterministic; safe to retry.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import ANSWERS, Counters
from transforms.records.answer import ModelAnswer
from transforms.records.request import ModelRequest
from transforms.storage.ledger import SettledAnswer, better


class ReuseAnswersResult(NamedTuple):
    """fresh: ModelRequest, each once; answers: ModelAnswer with reused=True."""

    fresh: pvalue.PCollection
    answers: pvalue.PCollection


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
            | "ChooseAnswer" >> beam.ParDo(_ChooseAnswerDoFn()).with_outputs(ANSWERS, main="fresh")
        )
        return ReuseAnswersResult(joined["fresh"], joined[ANSWERS])


class _ChooseAnswerDoFn(beam.DoFn):
    def setup(self) -> None:
        self._counters = Counters("ReuseAnswers")

    def process(self, keyed: tuple[str, Iterable[ModelRequest | SettledAnswer]]) -> Iterator[Any]:
        request: ModelRequest | None = None
        settled: SettledAnswer | None = None
        copies = 0
        for item in keyed[1]:
            if isinstance(item, ModelRequest):
                copies += 1
                request = item if request is None or item.hashes.variables < request.hashes.variables else request
            else:
                settled = item if settled is None else better(settled, item)
        if request is None:
            return
        if copies > 1:
            self._counters.add("requests_shared", copies - 1)
        if settled is None:
            self._counters.add("requests_fresh")
            yield request
        else:
            self._counters.add("requests_reused")
            yield pvalue.TaggedOutput(ANSWERS, reuse_answer(request, settled))


def reuse_answer(request: ModelRequest, settled: SettledAnswer) -> ModelAnswer:
    """Return the answer of `request` as the ledger holds it."""
    return ModelAnswer(
        request=request,
        kind=settled.kind,
        text=settled.text,
        reason=settled.reason,
        attempts=settled.attempt,
        call_id=settled.call_id,
        run_id=settled.run_id,
        reused=True,
        response_model=settled.response_model,
        usage=settled.usage,
        cost_usd=settled.cost_usd,
    )
