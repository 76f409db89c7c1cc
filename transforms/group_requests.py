"""GroupRequests: (request_id, packed ModelRequest) -> RequestGroup.

Groups of at most `group_size` requests, keyed by (provider, model, stable shard of the request's id), so that the
key is a function of the element alone. The Reshuffle behind the grouping spreads the groups over the workers; on
runners that keep what was shuffled, a retried bundle sees the same groups again, with the same batch_key. On one that
computes them anew groups may differ: ids that were answered are then found by the next run, not by the retry.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from transforms.records.request import RequestGroup
from transforms.records.settings import BatchingSettings
from transforms.rules.fingerprint import batch_key, stable_shard

#: At most so many requests are handed to GroupIntoBatches as one element.
PACKET_SIZE = 25

Packet = list[tuple[str, bytes]]


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
        packets = -(-self._batching.group_size // PACKET_SIZE)
        packet = self._batching.group_size // packets
        return (
            requests
            | "PackByShard" >> beam.ParDo(_PackByShardDoFn(self._provider, self._model, self._batching.shards, packet))
            | "GroupIntoBatches" >> beam.GroupIntoBatches(packets)
            | "NameGroup" >> beam.Map(_name, self._provider, self._model)
            | "SpreadOverWorkers" >> beam.Reshuffle()
        )


class _PackByShardDoFn(beam.DoFn):
    """Key packets of requests: Beam's state costs as much for a packet as for one request."""

    def __init__(self, provider: str, model: str, shards: int, packet_size: int) -> None:
        self._prefix = f"{provider}/{model}"
        self._shards = shards
        self._packet_size = packet_size

    def start_bundle(self) -> None:
        self._open: dict[int, Packet] = {}

    def process(self, request: tuple[str, bytes]) -> Iterator[tuple[str, Packet]]:
        shard = stable_shard(request[0], self._shards)
        packet = self._open.setdefault(shard, [])
        packet.append(request)
        if len(packet) == self._packet_size:
            yield f"{self._prefix}/{shard}", self._open.pop(shard)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for shard, packet in self._open.items():
            yield WindowedValue((f"{self._prefix}/{shard}", packet), MIN_TIMESTAMP, (GlobalWindow(),))
        self._open = {}


def _name(keyed: tuple[str, Iterable[Packet]], provider: str, model: str) -> RequestGroup:
    packed = sorted(item for packet in keyed[1] for item in packet)
    return RequestGroup(
        batch_key(provider, model, [request_id for request_id, _ in packed]), tuple(data for _, data in packed)
    )
