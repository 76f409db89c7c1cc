"""RouteRequests: fresh requests -> real time, or the provider's batch API, keyed by the batch they belong to.

The decision is one for all: it depends on how many requests are fresh, which a side input tells. Deterministic; safe
to retry.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.transforms.combiners import Count

from transforms.records.settings import BatchingSettings
from transforms.rules.fingerprint import stable_shard
from transforms.rules.route import choose_route, shard_count

_BATCH = "batch"


class RouteRequestsResult(NamedTuple):
    """real_time: (request_id, packed ModelRequest); batch: (shard, (request_id, packed ModelRequest))."""

    real_time: pvalue.PCollection
    batch: pvalue.PCollection


class RouteRequests(beam.PTransform):
    """Choose how fresh requests travel.

    Args:
        batching: mode and threshold.
        max_requests: of one batch.
        by_batch: the provider has a batch API that the job may use.
    """

    def __init__(self, batching: BatchingSettings, max_requests: int, *, by_batch: bool) -> None:
        super().__init__()
        self._batching = batching
        self._max_requests = max_requests
        self._by_batch = by_batch

    def expand(self, fresh: pvalue.PCollection) -> Any:
        """Count, then send all the same way."""
        count = fresh | "CountFresh" >> Count.Globally()
        route = beam.ParDo(
            _RouteRequestDoFn(self._batching, self._max_requests, self._by_batch), pvalue.AsSingleton(count)
        )
        typed = route.with_output_types(tuple[str, bytes], batch=tuple[int, tuple[str, bytes]])
        routed = fresh | "RouteRequest" >> typed.with_outputs(_BATCH, main="real_time")
        return RouteRequestsResult(routed["real_time"], routed[_BATCH])


class _RouteRequestDoFn(beam.DoFn):
    def __init__(self, batching: BatchingSettings, max_requests: int, by_batch: bool) -> None:
        self._batching = batching
        self._max_requests = max_requests
        self._by_batch = by_batch

    def process(self, request: tuple[str, bytes], count: int) -> Iterator[Any]:
        batching = self._batching
        if choose_route(batching.mode, count, batching.threshold, self._by_batch, self._by_batch) == "real_time":
            yield request
        else:
            shard = stable_shard(request[0], shard_count(count, self._max_requests))
            yield pvalue.TaggedOutput(_BATCH, (shard, request))
