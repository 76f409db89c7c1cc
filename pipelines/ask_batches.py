"""The batch half of a lane: requests routed, staged, submitted, watched and collected (DESIGN section 2)."""

from dataclasses import replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from pipelines.prepare import PreparedJob
from transforms.adopt_batches import AdoptBatches
from transforms.collect_batches import CollectBatches
from transforms.poll_batches import PollBatches
from transforms.providers.session import Stop, pending_request
from transforms.records.answer import PendingRequest
from transforms.records.request import unpack
from transforms.records.run import CallSettings
from transforms.route_requests import RouteRequests
from transforms.stage_batches import StageBatches
from transforms.submit_batches import SubmitBatches

_IN_FLIGHT = Stop("dry run: a batch of an earlier run holds it", None)


def leave_in_flight(waiting: tuple[str, tuple[str, bytes]]) -> PendingRequest:
    """Leave a request where it is: the dry run's end of what a batch in flight holds."""
    return pending_request(unpack(waiting[1][1]), _IN_FLIGHT)


class AskBatchesResult(NamedTuple):
    """real_time: (request_id, packed ModelRequest) of what goes real time; answers: ModelAnswer; pending:
    PCollections of PendingRequest; call_records: CallRecord. answers and call_records are None in a dry run and
    where there are no batches.
    """  # noqa: D205 - a list

    real_time: pvalue.PCollection
    answers: pvalue.PCollection | None
    pending: list[pvalue.PCollection]
    call_records: pvalue.PCollection | None


class AskBatches(beam.PTransform):
    """Ask by batch what the job's mode says and what earlier runs have in flight; give the rest back.

    Args:
        job: the prepared job.
        in_flight: what batches of earlier runs hold (ReuseAnswers), or None.

    Applied to the fresh requests.
    """

    def __init__(self, job: PreparedJob, in_flight: pvalue.PCollection | None) -> None:
        super().__init__()
        self._job = job
        self._in_flight = in_flight

    def expand(self, fresh: pvalue.PCollection) -> Any:
        """Route, ask, and ask once more by batch where the job says so."""
        job, settings = self._job, self._job.call_settings
        route = RouteRequests(job.batching, job.max_batch_requests, by_batch=job.by_batch)
        routed = fresh | "RouteRequests" >> route
        rounds = [routed.batch | "FirstRound" >> BatchRound(job, self._in_flight, settings)]
        if job.batching.retry_failed == "batch":
            last = replace(settings, batching=job.batching.model_copy(update={"retry_failed": "none"}))
            again = rounds[0].again | "RouteAgain" >> RouteRequests(job.batching, job.max_batch_requests, by_batch=True)
            rounds.append(again.batch | "SecondRound" >> BatchRound(job, None, last))
            real_time = [routed.real_time, again.real_time]
        else:
            real_time = [routed.real_time]
        back = [*real_time, *(one.real_time for one in rounds)] | "FlattenRealTime" >> beam.Flatten()
        answers = [part for one in rounds for part in one.answers] | "FlattenAnswers" >> beam.Flatten()
        records = [part for one in rounds for part in one.call_records] | "FlattenCalls" >> beam.Flatten()
        return AskBatchesResult(back, answers, [one.pending for one in rounds], records)


class BatchRoundResult(NamedTuple):
    """answers: PCollections of ModelAnswer; pending: PendingRequest; real_time, again: (request_id, packed
    ModelRequest) of what goes real time, or into another batch; call_records: PCollections of CallRecord.
    """  # noqa: D205 - a list

    answers: list[pvalue.PCollection]
    pending: pvalue.PCollection
    real_time: pvalue.PCollection
    again: pvalue.PCollection
    call_records: list[pvalue.PCollection]


class BatchRound(beam.PTransform):
    """Ask by the provider's batch API, once.

    Args:
        job: the prepared job.
        in_flight: requests that batches of earlier runs hold (ReuseAnswers), or None.
        settings: the run's call settings, with the rule for what this round leaves unanswered.

    Applied to (shard, (request_id, packed ModelRequest)) of RouteRequests.
    """

    def __init__(self, job: PreparedJob, in_flight: pvalue.PCollection | None, settings: CallSettings) -> None:
        super().__init__()
        self._job = job
        self._in_flight = in_flight
        self._settings = settings

    def expand(self, requests: pvalue.PCollection) -> Any:
        """Build the path."""
        job, settings = self._job, self._settings
        staged = requests | "StageBatches" >> StageBatches(settings, job.run.asked, job.max_batch_requests)
        refs = staged.refs
        if self._in_flight is not None:
            adopt = AdoptBatches(job.ledger, job.run.asked, job.open_batches)
            adopted = self._in_flight | "AdoptBatches" >> adopt
            refs = (refs, adopted) | "FlattenBatches" >> beam.Flatten()
        submitted = refs | "SubmitBatches" >> SubmitBatches(settings)
        polled = submitted.turns | "PollBatches" >> PollBatches(settings)
        collected = polled.turns | "CollectBatches" >> CollectBatches(settings)
        return BatchRoundResult(
            [staged.answers, collected.answers],
            collected.pending,
            collected.real_time,
            collected.batch,
            [submitted.calls, polled.calls, collected.calls],
        )
