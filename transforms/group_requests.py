"""GroupRequests: ModelRequest -> RequestGroup.

Groups of at most `group_size` requests, keyed by (provider, model, stable shard of the request's id), so that the
key is a function of the element alone. The Reshuffle behind the grouping makes a group stable: a retried bundle
sees the same groups again, with the same batch_key, and spreads the groups over the workers.
"""

from collections.abc import Iterable

import apache_beam as beam
from apache_beam import pvalue

from transforms.records.request import ModelRequest, RequestGroup, pack
from transforms.records.settings import BatchingSettings
from transforms.rules.fingerprint import batch_key, stable_shard


@beam.typehints.with_input_types(ModelRequest)
@beam.typehints.with_output_types(RequestGroup)
class GroupRequests(beam.PTransform):
    """Group requests that may travel together.

    Args:
        provider, model: what they are asked of; part of the key and of the group's identity.
        batching: group_size bounds a group's memory; more shards spread the grouping over more workers and leave
            more part-filled groups.
    """

    def __init__(self, provider: str, model: str, batching: BatchingSettings) -> None:
        super().__init__()
        self._provider = provider
        self._model = model
        self._batching = batching

    def expand(self, requests: pvalue.PCollection) -> pvalue.PCollection:
        """Key, batch, name and redistribute."""
        return (
            requests
            | "KeyByShard" >> beam.Map(_key, self._provider, self._model, self._batching.shards)
            | "GroupIntoBatches" >> beam.GroupIntoBatches(self._batching.group_size)
            | "NameGroup" >> beam.Map(_name, self._provider, self._model)
            | "SpreadOverWorkers" >> beam.Reshuffle()
        )


def _key(request: ModelRequest, provider: str, model: str, shards: int) -> tuple[str, tuple[str, bytes]]:
    request_id = request.request_id
    return f"{provider}/{model}/{stable_shard(request_id, shards)}", (request_id, pack(request))


def _name(keyed: tuple[str, Iterable[tuple[str, bytes]]], provider: str, model: str) -> RequestGroup:
    packed = sorted(keyed[1])
    return RequestGroup(
        batch_key(provider, model, [request_id for request_id, _ in packed]), tuple(data for _, data in packed)
    )
