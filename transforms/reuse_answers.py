"""ReuseAnswers: requests joined with the ledger: answered already, in flight in a batch, or fresh.

Equal requests become one here, whether they come from two rows of this run or from an earlier run; that is what
makes a second run send nothing (P8) and identical requests be paid once (P2). The rows that wait for a request
travel with it, up to MAX_RIDERS; where more rows ask the same, the rest leave as `crowd` and meet the answer in
JoinAnswers, so that no element grows without bound. Deterministic; safe to retry.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import ANSWERS, CROWD, IN_FLIGHT, Counters
from transforms.records.answer import ModelAnswer
from transforms.records.request import MAX_RIDERS, ModelRequest, pack, unpack
from transforms.records.row import AskedRow
from transforms.storage.ledger import SettledAnswer, better, in_flight_batch, is_settled, unpack_settled


class ReuseAnswersResult(NamedTuple):
    """fresh: (request_id, packed ModelRequest), each once; answers: ModelAnswer with reused=True; crowd: (request_id,
    AskedRow); in_flight: (batch_key, (request_id, packed ModelRequest)) of what a batch of an earlier run holds.
    """  # noqa: D205 - a list

    fresh: pvalue.PCollection
    answers: pvalue.PCollection
    crowd: pvalue.PCollection
    in_flight: pvalue.PCollection | None


class ReuseAnswers(beam.PTransform):
    """Answer requests from the ledger; pass on, once each, those it can't answer.

    Args:
        settled: PCollection of (request_id, packed SettledAnswer) of earlier runs; None when there were none.
        waiting: PCollection of (request_id, mark) of what batches in flight hold (ReadBatches); None likewise.
    """

    def __init__(self, settled: pvalue.PCollection | None, waiting: pvalue.PCollection | None = None) -> None:
        super().__init__()
        self._known = [known for known in (settled, waiting) if known is not None]
        self._has_batches = waiting is not None

    def expand(self, requests: pvalue.PCollection) -> Any:
        """Bring requests and answers of one id together."""
        if self._known:
            requests = (requests, *self._known) | "FlattenWithLedger" >> beam.Flatten()
        tags = (ANSWERS, CROWD, IN_FLIGHT) if self._has_batches else (ANSWERS, CROWD)
        choose = beam.ParDo(_ChooseAnswerDoFn()).with_output_types(
            tuple[str, bytes], answers=ModelAnswer, crowd=tuple[str, Any], in_flight=tuple[str, Any]
        )
        joined = (
            requests
            | "GroupByRequest" >> beam.GroupByKey()
            | "ChooseAnswer" >> choose.with_outputs(*tags, main="fresh")
        )
        in_flight = joined[IN_FLIGHT] if self._has_batches else None
        return ReuseAnswersResult(joined["fresh"], joined[ANSWERS], joined[CROWD], in_flight)


class _ChooseAnswerDoFn(beam.DoFn):
    def setup(self) -> None:
        self._counters = Counters("ReuseAnswers")

    def start_bundle(self) -> None:
        self._fresh = 0

    def finish_bundle(self) -> None:
        # Counted once a bundle: a counter costs more than passing the request on.
        self._counters.add("requests_fresh", self._fresh)

    def process(self, keyed: tuple[str, Iterable[bytes]]) -> Iterator[Any]:
        items = iter(keyed[1])
        first_item = next(items)
        second = next(items, None)
        if second is None and not is_settled(first_item) and in_flight_batch(first_item) is None:
            # Most requests: asked once and never before. They pass as they are.
            self._fresh += 1
            yield keyed[0], first_item
            return
        shared = _Shared()
        for item in chain((first_item,), () if second is None else (second,), items):
            for asked in shared.take(item):
                yield pvalue.TaggedOutput(CROWD, (keyed[0], asked))
        if shared.first is None:
            return
        request = replace(shared.first, riders=tuple(shared.riders), crowded=shared.crowded)
        if shared.count > 1:
            self._counters.add("requests_shared")
        if shared.settled is not None:
            self._counters.add("requests_reused")
            yield pvalue.TaggedOutput(ANSWERS, shared.settled.answer(request))
        elif shared.batch_key is not None:
            self._counters.add("requests_in_flight")
            yield pvalue.TaggedOutput(IN_FLIGHT, (shared.batch_key, (keyed[0], pack(request))))
        else:
            self._fresh += 1
            yield keyed[0], pack(request)


class _Shared:
    """What equal requests, their known answers and the batch that holds them come to; holds one request and MAX_RIDERS rows at a time."""

    def __init__(self) -> None:
        self.first: ModelRequest | None = None
        self.settled: SettledAnswer | None = None
        self.batch_key: str | None = None
        self.riders: list[AskedRow] = []
        self.crowded = False
        self.count = 0

    def take(self, item: bytes) -> list[AskedRow]:
        """Take a packed request or answer; return the rows that must travel apart."""
        if is_settled(item):
            settled = unpack_settled(item)
            self.settled = settled if self.settled is None else better(self.settled, settled)
            return []
        batch_key = in_flight_batch(item)
        if batch_key is not None:
            self.batch_key = batch_key if self.batch_key is None else min(self.batch_key, batch_key)
            return []
        request = unpack(item)
        self.count += 1
        if self.first is None or request.hashes.variables < self.first.hashes.variables:
            self.first = request
        room = MAX_RIDERS - len(self.riders)
        self.riders.extend(request.riders[:room])
        self.crowded |= request.crowded or len(request.riders) > room
        return list(request.riders[room:])
