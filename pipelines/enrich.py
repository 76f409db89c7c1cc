"""The whole path, on one screen: rows in, calls, enriched rows, audit and dead letters out.

Run it without the command line tool: `python -m pipelines.enrich --job=job.yaml --runner=... --setup_file=./setup.py`.
"""

import sys
from datetime import UTC, datetime
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from pipelines.ask_batches import AskBatches, AskBatchesResult, leave_in_flight
from pipelines.lease_facts import holder
from pipelines.prepare import PreparedJob
from pipelines.tally import CloseRun, tally_failure, tally_pending, tally_reused
from transforms.call_model import CallModel
from transforms.conserve_rows import ConserveRows
from transforms.group_requests import GroupRequests
from transforms.identify_rows import IdentifyRows
from transforms.join_answers import JoinAnswers
from transforms.parse_answers import ParseAnswers
from transforms.read_answers import ReadAnswers
from transforms.read_batches import ReadBatches
from transforms.read_rows import ReadRows
from transforms.records.errors import ConfigError
from transforms.render_prompts import RenderPrompts
from transforms.reuse_answers import ReuseAnswers, ReuseAnswersResult
from transforms.rules.settle import kept_row, lost_outcome
from transforms.settle_rows import SettleRows
from transforms.write_audit import WriteAudit
from transforms.write_calls import WriteCalls
from transforms.write_dead_letters import WriteDeadLetters
from transforms.write_enriched import WriteEnriched


class EnrichRowsResult(NamedTuple):
    """rows: PCollections of enriched rows (dicts); failures: DeadLetter; outcomes: PCollections of RowOutcome.

    rows and outcomes come in several PCollections, because a Flatten would hold them up; together the outcomes have
    one element per row that was read.
    """

    rows: list[pvalue.PCollection]
    failures: pvalue.PCollection
    outcomes: list[pvalue.PCollection]


class EnrichRows(beam.PTransform):
    """Ask a model about every row of a job's input and write what DESIGN section 4 says; gives EnrichRowsResult.

    Args:
        prepared: the `job` of an open run (`pipelines.run.opened`), which holds the output, opens the budget's books
            and writes the manifest: without it nothing would be paid once only, nor a budget hold.

    Raises:
        ConfigError: when applied while that run is not open.
    """

    def __init__(self, prepared: PreparedJob) -> None:
        super().__init__()
        self._prepared = prepared

    def expand(self, root: Any) -> Any:
        """Build the path."""
        job = self._prepared
        _require_open(job)
        read = root | "ReadRows" >> ReadRows(job.input, job.files, job.input_schema)
        named = read.rows | "IdentifyRows" >> IdentifyRows(job.input.key)
        asked = named.rows | "RenderPrompts" >> RenderPrompts(job.template, job.identity, job.redact)

        settled = root | "ReadAnswers" >> ReadAnswers(job.ledger, job.run_id, is_first=not job.segments)
        waiting = root | "ReadBatches" >> ReadBatches(job.ledger, job.open_batches) if job.open_batches else None
        first = asked.requests | "AskModel" >> AskModel(
            job, settled.main, waiting, by_batch=job.by_batch, repair=job.repair
        )
        again = first.repairs | "AskAgain" >> AskModel(job, settled.repair, None, by_batch=False, repair=False)

        # New answers settle in the stage that calls, while other calls are still out; the rest comes after.
        new = first.new | "SettleNew" >> FinishRows(job)
        others = [first.old, *first.pending, *first.batched, again.new, again.old, *again.pending]
        rest = others | "FlattenRest" >> beam.Flatten() | "SettleRest" >> FinishRows(job)
        # A repair asks about one request, whose first rows travel with it: the second lane has no crowd of its own.
        late = first.crowd | "JoinAnswers" >> JoinAnswers([new.ends, rest.ends]) | "SettleCrowd" >> FinishRows(job)

        finished = [new, rest, late]
        unread = [read.failures, named.failures, asked.failures]
        failures = [*unread, *(part.failures for part in finished)] | "FlattenFailures" >> beam.Flatten()
        lost = failures | "LostRow" >> beam.Map(lost_outcome)
        parts = [part for finish in finished for part in (finish.row_parts, finish.audit_parts)]
        parts += [*first.call_parts, *again.call_parts]
        parts.append(lost | "AuditLost" >> WriteAudit(job.run))
        parts.append(failures | "WriteDeadLetters" >> WriteDeadLetters(job.run.dead_letters, job.run_id, job.redact))
        if job.keep:
            unasked = (named.failures, asked.failures) | "FlattenUnasked" >> beam.Flatten()
            kept = unasked | "KeepFailed" >> beam.Map(kept_row, job.columns)
            parts.append(
                kept | "WriteKept" >> WriteEnriched(job.run.enriched, job.enriched_schema, job.enriched_format)
            )

        tallies = [failures | "TallyFailures" >> beam.Map(tally_failure)]
        for lane, name in ((first, "First"), (again, "Again")):
            for place, pending in enumerate(lane.pending):
                tallies.append(pending | f"Tally{name}Pending{place or ''}" >> beam.Map(tally_pending))
            tallies.append(lane.old | f"Tally{name}Reused" >> beam.Map(tally_reused))
        ended = [lost, *(part.outcomes for part in finished)]
        counts = read.positions | "ConserveRows" >> ConserveRows(ended)
        counts | "CloseRun" >> CloseRun(job, tallies, parts)
        return EnrichRowsResult([part.rows for part in finished], failures, ended)


def _require_open(job: PreparedJob) -> None:
    """Refuse a run that does not hold its output; a dry run sends nothing and needs no output."""
    if not job.dry_run and holder(job.job.output, datetime.now(UTC)) != job.run_id:
        raise ConfigError(
            f"EnrichRows: run {job.run_id} does not hold {job.job.output}; build and run the pipeline inside "
            "`with pipelines.run.opened(load_job(...)) as run:`, with EnrichRows(run.job)"
        )


class AskModelResult(NamedTuple):
    """new, old, batched: RequestResult of answers given now, of reused ones, and by batch; crowd: (request_id, AskedRow)."""

    new: pvalue.PCollection
    old: pvalue.PCollection
    batched: list[pvalue.PCollection]
    repairs: pvalue.PCollection
    pending: list[pvalue.PCollection]
    crowd: pvalue.PCollection
    call_parts: list[pvalue.PCollection]


class AskModel(beam.PTransform):
    """One lane: reuse, batches, group, call, parse. The repair lane is the same path for the requests of invalid answers.

    Args:
        job: the prepared job.
        settled, waiting: what earlier runs have answered and have in flight (ReadAnswers, ReadBatches), or None.
        by_batch: fresh requests may go by the provider's batch API; repairs never do.
        repair: an invalid answer leaves as a repair, not as a failure.
    """

    def __init__(
        self,
        job: PreparedJob,
        settled: pvalue.PCollection | None,
        waiting: pvalue.PCollection | None,
        *,
        by_batch: bool,
        repair: bool,
    ) -> None:
        super().__init__()
        self._job = job
        self._settled = settled
        self._waiting = waiting
        self._by_batch = by_batch
        self._repair = repair

    def expand(self, requests: pvalue.PCollection) -> Any:
        """Parse new and reused answers apart: a Flatten between call and parse would break the stage in two."""
        job = self._job
        known = requests | "ReuseAnswers" >> ReuseAnswers(self._settled, self._waiting)
        asked = self._ask_batches(known)
        groups = asked.real_time | "GroupRequests" >> GroupRequests(job.provider_name, job.request_model, job.batching)
        calls = groups | "CallModel" >> CallModel(job.call_settings)
        new = calls.answers | "ParseAnswers" >> ParseAnswers(job.reader, job.identity, repair=self._repair)
        old = known.answers | "ParseReused" >> ParseAnswers(job.reader, job.identity, repair=self._repair)
        parsed = [new, old]
        call_parts = [calls.calls | "WriteCalls" >> WriteCalls(job.run)]
        if asked.answers is not None:
            parsed.append(asked.answers | "ParseBatched" >> ParseAnswers(job.reader, job.identity, repair=self._repair))
            call_parts.append(asked.call_records | "WriteBatchCalls" >> WriteCalls(job.run))
        repairs = [part.repairs for part in parsed] | "FlattenRepairs" >> beam.Flatten()
        batched = [part.results for part in parsed[2:]]
        pending = [calls.pending, *asked.pending]
        return AskModelResult(new.results, old.results, batched, repairs, pending, known.crowd, call_parts)

    def _ask_batches(self, known: ReuseAnswersResult) -> AskBatchesResult:
        job = self._job
        if job.dry_run:
            left = [] if known.in_flight is None else [known.in_flight | "LeaveInFlight" >> beam.Map(leave_in_flight)]
            return AskBatchesResult(known.fresh, None, left, None)
        if self._waiting is None and not self._by_batch:
            return AskBatchesResult(known.fresh, None, [], None)
        return known.fresh | "AskBatches" >> AskBatches(job, known.in_flight)


class FinishRowsResult(NamedTuple):
    """rows, outcomes, failures, ends: as SettleRows gives them; row_parts, audit_parts: the files they went to."""

    rows: pvalue.PCollection
    outcomes: pvalue.PCollection
    failures: pvalue.PCollection
    ends: pvalue.PCollection
    row_parts: pvalue.PCollection
    audit_parts: pvalue.PCollection


class FinishRows(beam.PTransform):
    """Settle rows and write them, and their line of the audit, at once."""

    def __init__(self, job: PreparedJob) -> None:
        super().__init__()
        self._job = job

    def expand(self, ends: pvalue.PCollection) -> Any:
        """Settle and write."""
        job = self._job
        settled = ends | "SettleRows" >> SettleRows(job.columns, keep=job.keep)
        row_parts = settled.rows | "WriteEnriched" >> WriteEnriched(
            job.run.enriched, job.enriched_schema, job.enriched_format
        )
        audit_parts = settled.outcomes | "WriteAudit" >> WriteAudit(job.run)
        return FinishRowsResult(settled.rows, settled.outcomes, settled.failures, settled.ends, row_parts, audit_parts)


def main(argv: list[str] | None = None) -> int:
    """Run a job as a plain Beam program; returns the exit code of DESIGN section 6."""
    from pipelines.job import load_job
    from pipelines.mishaps import judge
    from pipelines.options import EnrichOptions
    from pipelines.run import RunRequest, run_job

    arguments = sys.argv[1:] if argv is None else argv
    options = EnrichOptions(arguments)
    try:
        result = run_job(
            RunRequest(
                load_job(options.job_file(), options.set), arguments, agree=lambda _gap: options.yes, report=True
            )
        )
    except Exception as error:  # noqa: BLE001 - whatever it was, a scheduler gets its sentence and its exit code
        mishap = judge(error, running=True)
        print(f"rowbeam: {mishap.sentence}", file=sys.stderr)  # noqa: T201
        return mishap.exit_code
    print(result.sentence or f"done: {result.summary['outputs']['enriched']}", file=sys.stderr)  # noqa: T201
    return result.exit_code


if __name__ == "__main__":
    # The module that runs is __main__; stages must be pickled under their importable name.
    from pipelines.enrich import main as importable_main

    sys.exit(importable_main())
