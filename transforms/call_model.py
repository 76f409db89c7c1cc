"""CallModel: RequestGroup -> ModelAnswer, and PendingRequest for what is left unsent when the run must stop.

Calls overlap across groups: the stage feeds the process's one pool, yields what is done, and drains in
`finish_bundle`. What a runner's retry of a bundle does: the group's marker in the ledger tells that it was taken
up before in this run, so its records are read first and only requests without a settled call are sent. What was in
flight when a worker died may be sent again: that is the only case (P2).
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import orjson
from apache_beam import pvalue

from transforms import _worker
from transforms._stage import CALLS, PENDING, Counters, at_bundle_end
from transforms.providers.session import Batch, SessionItem, Stop, pending_request
from transforms.records.answer import PendingRequest
from transforms.records.call import BatchOpened, CallRecord
from transforms.records.failure import FailureKind
from transforms.records.request import ModelRequest, RequestGroup
from transforms.records.run import CallSettings
from transforms.rules.fingerprint import batch_id, custom_id
from transforms.storage.ledger import SettledAnswer, recorded_batch
from transforms.storage.objects import create_if_absent, join

_LOG = logging.getLogger("rowbeam.calls")


class CallModelResult(NamedTuple):
    """answers: ModelAnswer, one per settled request; pending: PendingRequest; calls: CallRecord."""

    answers: pvalue.PCollection
    pending: pvalue.PCollection
    calls: pvalue.PCollection


class CallModel(beam.PTransform):
    """Ask the model every request of every group.

    Args:
        settings: the run, the model and the limits. All bundles of a process share one pool and its limits.
    """

    def __init__(self, settings: CallSettings) -> None:
        super().__init__()
        self._settings = settings

    def expand(self, groups: pvalue.PCollection) -> Any:
        """Call, and tell answers from what was left."""
        call = _LeaveGroupDoFn() if self._settings.dry_run else _CallGroupDoFn(self._settings)
        called = groups | "CallGroup" >> beam.ParDo(call).with_outputs(PENDING, CALLS, main="answers")
        return CallModelResult(called["answers"], called[PENDING], called[CALLS])


class _CallGroupDoFn(beam.DoFn):
    def __init__(self, settings: CallSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._worker = _worker.acquire(self._settings)
        self._counters = Counters("CallModel")

    def start_bundle(self) -> None:
        self._session = self._worker.pool.open()
        self._tally: Counter[str] = Counter()

    def process(self, group: RequestGroup) -> Iterator[Any]:
        run_id = self._settings.run_id
        requests = group.requests()
        batch = Batch(batch_id(run_id, group.batch_key), len(requests))
        known = self._take_up(group.batch_key, requests, batch)
        fresh = []
        for request in requests:
            settled = known.get(request.request_id)
            if settled is None:
                fresh.append((request, custom_id(run_id, request.request_id)))
            else:
                batch.count(settled.kind)
                yield settled.answer(request)
        if not fresh:
            self._worker.pool.end_batch(batch)
        for result in self._session.feed(fresh, batch):
            yield self._out(result)

    def finish_bundle(self) -> Iterator[Any]:
        for result in self._session.drain():
            yield at_bundle_end(self._out(result))
        self._worker.end_bundle()
        self._count()

    def teardown(self) -> None:
        # Also after a bundle that failed: what it has queued must not be sent beside what its retry sends.
        if hasattr(self, "_session"):
            self._session.abandon()
        if hasattr(self, "_worker"):
            self._worker.leave_bundle()
            _worker.release(self._settings)

    def _take_up(self, batch_key: str, requests: list[ModelRequest], batch: Batch) -> dict[str, SettledAnswer]:
        """Mark the group as taken up; return what an earlier try of it in this run has settled."""
        settings = self._settings
        now_us, asked = time.time_ns() // 1000, self._worker.provider
        marker = join(settings.ledger, "batches", batch_key, f"taken-{settings.run_id}-")
        members = tuple((custom_id(settings.run_id, r.request_id), r.request_id) for r in requests)
        taken_up = (batch.batch_id, batch_key, settings.run_id, _mode(settings), asked.name, asked.request_model)
        self._worker.segment.append(BatchOpened(*taken_up, now_us, members))
        facts = {"batch_id": batch.batch_id, "run_id": settings.run_id, "taken_at_us": now_us}
        _LOG.info("batch_taken_up", extra={**facts, "requests": len(requests)})
        while not create_if_absent(f"{marker}{batch.tries}.json", orjson.dumps(facts)):
            batch.tries += 1
        if not batch.tries:
            return {}
        self._worker.segment.sync()  # the try before may have been in this process
        known, batch.next_index = recorded_batch(settings.ledger, settings.run_id, batch.batch_id)
        return known

    def _out(self, result: SessionItem) -> Any:
        if isinstance(result, CallRecord):
            self._tally["requests_sent"] += 1
            self._tally["retries"] += result.attempt > 1
            self._tally["answers" if result.kind is FailureKind.OK else f"errors_{result.kind}"] += 1
            return pvalue.TaggedOutput(CALLS, result)
        if isinstance(result, PendingRequest):
            self._counters.add("requests_pending")
            return pvalue.TaggedOutput(PENDING, result)
        return result

    def _count(self) -> None:
        for name, count in self._tally.items():
            self._counters.add(name, count)
        for size in self._worker.pool.take_bundle_sizes():
            self._counters.observe("bundle_size", size)


def _mode(settings: CallSettings) -> str:
    """Return the mode of a group's execution record: what a batch job asks in real time goes request by request."""
    return "serial_bundle" if settings.batching.mode == "serial_bundle" else "per_request"


class _LeaveGroupDoFn(beam.DoFn):
    """The dry run's stand-in: every request is left pending."""

    def process(self, group: RequestGroup) -> Iterator[Any]:
        for request in group.requests():
            yield pvalue.TaggedOutput(PENDING, pending_request(request, Stop("dry run: not sent", None)))
