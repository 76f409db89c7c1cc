"""StageBatches: keyed requests -> BatchRef, with the request file, its members and this run's requests at rest.

GroupIntoBatches counts, the stager splits by bytes and by budget; a request that no batch can hold is given up alone
(P7). Nothing is sent here. Safe to retry: a batch that was staged and not sent is staged again.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._budget_batches import BatchCap
from transforms._stage import ANSWERS, Counters, at_bundle_end
from transforms.providers import make_batch_api, make_provider
from transforms.records.answer import ModelAnswer
from transforms.records.batch import BatchLimits, BatchRef
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind
from transforms.records.request import ModelRequest, unpack
from transforms.records.run import CallSettings
from transforms.records.usage import Usage
from transforms.rules.fingerprint import batch_key, custom_id, tagged_sha256
from transforms.rules.tokens import prompt_tokens
from transforms.storage.batch_stager import BatchMember, BatchOrigin, BatchStager
from transforms.storage.objects import ensure_folder

#: At most so many requests are handed to GroupIntoBatches as one element: state costs as much for one.
_PACKET_SIZE = 25
_NAME_TAG = "provider_batch"
_Packet = list[tuple[str, bytes]]


class StageBatchesResult(NamedTuple):
    """refs: BatchRef; answers: ModelAnswer of requests that fit no batch."""

    refs: pvalue.PCollection
    answers: pvalue.PCollection


class StageBatches(beam.PTransform):
    """Write the requests of batches to the ledger.

    Args:
        settings: the run and the model.
        asked_folder: where this run's own requests of each batch go.
        max_requests: of one batch.
    """

    def __init__(self, settings: CallSettings, asked_folder: str, max_requests: int) -> None:
        super().__init__()
        self._settings = settings
        self._asked_folder = asked_folder
        self._max_requests = max_requests

    def expand(self, requests: pvalue.PCollection) -> Any:
        """Group by shard and count, then write."""
        packet = min(_PACKET_SIZE, self._max_requests)
        typed = beam.ParDo(_PackByShardDoFn(packet)).with_output_types(tuple[str, Any])
        stage = beam.ParDo(_StageBatchDoFn(self._settings, self._asked_folder, self._max_requests))
        staged = (
            requests
            | "PackByShard" >> typed
            | "GroupIntoBatches" >> beam.GroupIntoBatches(max(1, self._max_requests // packet))
            | "StageBatch" >> stage.with_outputs(ANSWERS, main="refs")
        )
        return StageBatchesResult(staged["refs"], staged[ANSWERS])


class _PackByShardDoFn(beam.DoFn):
    # Text keys, as in GroupRequests: FnApiRunner hands cleared timers to the graph's next GroupIntoBatches to decode.
    def __init__(self, packet_size: int) -> None:
        self._packet_size = packet_size

    def start_bundle(self) -> None:
        self._open: dict[int, _Packet] = {}

    def process(self, keyed: tuple[int, tuple[str, bytes]]) -> Iterator[tuple[str, _Packet]]:
        shard, request = keyed
        self._open.setdefault(shard, []).append(request)
        if len(self._open[shard]) == self._packet_size:
            yield str(shard), self._open.pop(shard)

    def finish_bundle(self) -> Iterator[Any]:
        for shard, packet in self._open.items():
            yield at_bundle_end((str(shard), packet))
        self._open = {}


class _StageBatchDoFn(beam.DoFn):
    def __init__(self, settings: CallSettings, asked_folder: str, max_requests: int) -> None:
        self._settings = settings
        self._asked_folder = asked_folder
        self._max_requests = max_requests

    def setup(self) -> None:
        settings = self._settings
        self._provider = make_provider(settings.model, settings.schema)
        api = make_batch_api(settings.model, settings.schema, self._provider)
        if api is None:
            raise InternalError(f"{settings.model.provider} has no batch API, yet requests were routed to it")
        self._api = api
        self._limits = BatchLimits(self._max_requests, api.limits.max_bytes)
        self._counters = Counters("StageBatches")
        self._cap = BatchCap(settings, self._provider)

    def process(self, keyed: tuple[str, Iterable[_Packet]]) -> Iterator[Any]:
        requests = [packed for packet in keyed[1] for _, packed in packet]
        stager = self._stager(requests)
        try:
            for packed in requests:
                staged = self._add(stager, unpack(packed), packed)
                if isinstance(staged, ModelAnswer):
                    yield pvalue.TaggedOutput(ANSWERS, staged)
                elif staged is not None:
                    yield staged
            last = stager.finish()
        finally:
            stager.discard()
        if last is not None:
            yield last.ref()

    def _add(self, stager: BatchStager, request: ModelRequest, packed: bytes) -> BatchRef | ModelAnswer | None:
        name = custom_id(self._settings.run_id, request.request_id)
        line = self._api.line(name, self._provider.body(request.prompt))
        if not stager.fits(line):
            self._counters.add("requests_too_large")
            reason = f"the request has {len(line):,} bytes, a batch {self._limits.max_bytes:,}; shorten the row's text"
            kind = FailureKind.REQUEST_TOO_LARGE
            return ModelAnswer(request, kind, None, reason, 0, None, None, False, None, Usage(), None)
        hashes = request.hashes
        member = BatchMember(
            name, request.request_id, request.root_request_id, request.lane, hashes.prompt, hashes.template,
            hashes.variables, hashes.lookup, prompt_tokens(request.prompt),
        )  # fmt: skip
        finished = stager.add(member, line, packed)
        return None if finished is None else finished.ref()

    def _stager(self, requests: list[bytes]) -> BatchStager:
        settings = self._settings
        ensure_folder(self._asked_folder)
        origin = BatchOrigin(
            settings.run_id, self._api.request_model, self._provider.name, "provider_batch_api", self._provider.base_url
        )
        limits, cap = self._limits, self._cap.rule(requests)
        return BatchStager(settings.ledger, self._asked_folder, limits, self._name, origin, may_hold=cap)

    def _name(self, request_ids: list[str]) -> str:
        # What a batch leaves unanswered, the pool may ask in one group of the same run: its name must be another.
        return tagged_sha256(_NAME_TAG, batch_key(self._provider.name, self._api.request_model, request_ids))
