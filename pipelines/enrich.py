"""The whole path, on one screen: rows in, calls, enriched rows, audit and dead letters out.

Run it without the command line tool: `python -m pipelines.enrich --job=job.yaml --runner=... --setup_file=./setup.py`.
"""

from typing import Any, NamedTuple

import apache_beam as beam
import orjson
from apache_beam import pvalue
from apache_beam.transforms.combiners import Count

from pipelines.prepare import PreparedJob
from transforms.call_model import CallModel
from transforms.conserve_rows import ConserveRows
from transforms.group_requests import GroupRequests
from transforms.identify_rows import IdentifyRows
from transforms.join_answers import JoinAnswers
from transforms.parse_answers import ParseAnswers
from transforms.read_answers import ReadAnswers
from transforms.read_rows import ReadRows
from transforms.records.answer import PendingRequest
from transforms.records.failure import DeadLetter
from transforms.records.row import Outcome, RowOutcome
from transforms.render_prompts import RenderPrompts
from transforms.reuse_answers import ReuseAnswers
from transforms.rules.answer_columns import AnswerColumns
from transforms.rules.run_totals import CallTotals
from transforms.storage.objects import write_atomic
from transforms.write_audit import WriteAudit
from transforms.write_dead_letters import WriteDeadLetters
from transforms.write_enriched import WriteEnriched


class EnrichRowsResult(NamedTuple):
    """rows: dict of each enriched row; failures: DeadLetter; outcomes: RowOutcome, one per row that was read."""

    rows: pvalue.PCollection
    failures: pvalue.PCollection
    outcomes: pvalue.PCollection


class EnrichRows(beam.PTransform):
    """Ask a model about every row of a job's input and write what DESIGN section 4 says.

    Args:
        prepared: the job with everything that was checked before launch (`pipelines.prepare.prepare`).
    """

    def __init__(self, prepared: PreparedJob) -> None:
        super().__init__()
        self._prepared = prepared

    def expand(self, root: Any) -> EnrichRowsResult:
        """Build the path."""
        job = self._prepared
        read = root | "ReadRows" >> ReadRows(job.input, job.files, job.input_schema)
        named = read.rows | "IdentifyRows" >> IdentifyRows(job.input.key)
        asked = named.rows | "RenderPrompts" >> RenderPrompts(job.template, job.identity, job.redact)

        settled = root | "ReadAnswers" >> ReadAnswers(job.segments)
        main = asked.requests | "ReuseAnswers" >> ReuseAnswers(settled.main)
        groups = main.fresh | "GroupRequests" >> GroupRequests(job.provider_name, job.request_model, job.batching)
        calls = groups | "CallModel" >> CallModel(job.call_settings)
        answers = (main.answers, calls.answers) | "FlattenAnswers" >> beam.Flatten()
        parsed = answers | "ParseAnswers" >> ParseAnswers(job.reader, job.identity, repair=job.repair)

        repair = parsed.repairs | "ReuseRepairs" >> ReuseAnswers(settled.repair)
        regroups = repair.fresh | "GroupRepairs" >> GroupRequests(job.provider_name, job.request_model, job.batching)
        recalls = regroups | "CallModelAgain" >> CallModel(job.call_settings)
        reanswers = (repair.answers, recalls.answers) | "FlattenRepairs" >> beam.Flatten()
        reparsed = reanswers | "ParseRepairs" >> ParseAnswers(job.reader, job.identity, repair=False)

        reused = (main.answers, repair.answers) | "FlattenReused" >> beam.Flatten()

        results = (parsed.results, reparsed.results) | "FlattenResults" >> beam.Flatten()
        pending = (calls.pending, recalls.pending) | "FlattenPending" >> beam.Flatten()
        joined = asked.rows | "JoinAnswers" >> JoinAnswers(results, pending, job.columns, keep=job.keep)
        failures = (
            read.failures, named.failures, asked.failures, joined.failures
        ) | "FlattenFailures" >> beam.Flatten()  # fmt: skip
        lost = failures | "FailureOutcome" >> beam.Map(_outcome)
        outcomes = (joined.outcomes, lost) | "FlattenOutcomes" >> beam.Flatten()

        kept = joined.rows
        if job.keep:
            unasked = (named.failures, asked.failures) | "FlattenUnasked" >> beam.Flatten()
            kept = (kept, unasked | "KeepUnasked" >> beam.Map(_keep, job.columns)) | "FlattenKept" >> beam.Flatten()
        kept | "WriteEnriched" >> WriteEnriched(job.run.enriched, job.enriched_schema, job.enriched_format)
        failures | "WriteDeadLetters" >> WriteDeadLetters(job.run.dead_letters, job.run_id)
        audit = outcomes | "WriteAudit" >> WriteAudit(job.run.audit, job.ledger, job.run_id, [results, pending])
        counts = outcomes | "ConserveRows" >> ConserveRows(read.positions)
        counts | "WriteTotals" >> beam.Map(
            _write_totals,
            job.run.totals,
            calls=pvalue.AsSingleton(audit.totals),
            pending=pvalue.AsList(
                pending | "PendingReason" >> beam.Map(_reason) | "CountReasons" >> Count.PerElement()
            ),
            lost=pvalue.AsList(failures | "FailureKind" >> beam.Map(_kind) | "CountKinds" >> Count.PerElement()),
            reused=pvalue.AsSingleton(reused | "CountReused" >> Count.Globally()),
        )
        return EnrichRowsResult(kept, failures, outcomes)


def _keep(failure: DeadLetter, columns: AnswerColumns) -> dict[str, Any]:
    """Return the enriched row of a row that could be read but never became a request."""
    values = failure.row if isinstance(failure.row, dict) else {}
    return {**values, **columns.failed(failure.kind, failure.reason)}


def _outcome(failure: DeadLetter) -> RowOutcome:
    return RowOutcome(
        failure.row_id,
        failure.path,
        failure.line,
        Outcome.DEAD_LETTERED,
        failure.request_id,
        failure.call_id,
        failure.run_id,
    )


def _reason(pending: PendingRequest) -> tuple[str, str]:
    return str(pending.kind or ""), pending.reason


def _kind(failure: DeadLetter) -> tuple[str, str]:
    return str(failure.stage), str(failure.kind)


def _write_totals(
    counts: dict[str, Any],
    path: str,
    *,
    calls: CallTotals,
    pending: list[tuple[tuple[str, str], int]],
    lost: list[tuple[tuple[str, str], int]],
    reused: int,
) -> None:
    """Leave the run's proved counts where the launcher finds them (a worker can't hand them back)."""
    totals = {
        "rows": counts,
        "calls": calls.to_json(),
        "pending": [{"kind": kind or None, "reason": why, "requests": n} for (kind, why), n in sorted(pending)],
        "dead_letters": [{"stage": stage, "kind": kind, "rows": n} for (stage, kind), n in sorted(lost)],
        "reused": reused,
    }
    write_atomic(path, orjson.dumps(totals))
