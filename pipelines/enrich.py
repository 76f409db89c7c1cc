"""The whole path, on one screen: rows in, calls, enriched rows, audit and dead letters out.

Run it without the command line tool: `python -m pipelines.enrich --job=job.yaml --runner=... --setup_file=./setup.py`.
"""

import sys
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from pipelines.prepare import PreparedJob
from pipelines.tally import CloseRun, tally_failure, tally_pending, tally_reused
from transforms.call_model import CallModel
from transforms.conserve_rows import ConserveRows
from transforms.group_requests import GroupRequests
from transforms.identify_rows import IdentifyRows
from transforms.join_answers import JoinAnswers, keep_failed, lost_row
from transforms.parse_answers import ParseAnswers
from transforms.read_answers import ReadAnswers
from transforms.read_rows import ReadRows
from transforms.render_prompts import RenderPrompts
from transforms.reuse_answers import ReuseAnswers
from transforms.write_audit import WriteAudit
from transforms.write_dead_letters import WriteDeadLetters
from transforms.write_enriched import WriteEnriched


class EnrichRowsResult(NamedTuple):
    """rows: dict of each enriched row; failures: DeadLetter; outcomes: RowOutcome, one per row that was read."""

    rows: pvalue.PCollection
    failures: pvalue.PCollection
    outcomes: pvalue.PCollection


class EnrichRows(beam.PTransform):
    """Ask a model about every row of a job's input and write what DESIGN section 4 says; gives EnrichRowsResult.

    Args:
        prepared: the job with everything that was checked before launch (`pipelines.prepare.prepare`).
    """

    def __init__(self, prepared: PreparedJob) -> None:
        super().__init__()
        self._prepared = prepared

    def expand(self, root: Any) -> Any:
        """Build the path."""
        job = self._prepared
        read = root | "ReadRows" >> ReadRows(job.input, job.files, job.input_schema)
        named = read.rows | "IdentifyRows" >> IdentifyRows(job.input.key)
        asked = named.rows | "RenderPrompts" >> RenderPrompts(job.template, job.identity, job.redact)

        settled = root | "ReadAnswers" >> ReadAnswers(job.segments)
        main = asked.requests | "AskModel" >> AskModel(job, settled.main, repair=job.repair)
        again = main.repairs | "AskAgain" >> AskModel(job, settled.repair, repair=False)

        ends = [*main.ends, *again.ends]
        joined = asked.rows | "JoinAnswers" >> JoinAnswers(ends, job.columns, keep=job.keep)
        unread = [read.failures, named.failures, asked.failures]
        failures = (*unread, joined.failures) | "FlattenFailures" >> beam.Flatten()
        lost = failures | "LostRow" >> beam.Map(lost_row)
        outcomes = (joined.outcomes, lost) | "FlattenOutcomes" >> beam.Flatten()

        rows = joined.rows
        if job.keep:
            unasked = (named.failures, asked.failures) | "FlattenUnasked" >> beam.Flatten()
            rows = (
                rows,
                unasked | "KeepFailed" >> beam.Map(keep_failed, job.columns),
            ) | "FlattenKept" >> beam.Flatten()
        rows | "WriteEnriched" >> WriteEnriched(job.run.enriched, job.enriched_schema, job.enriched_format)
        failures | "WriteDeadLetters" >> WriteDeadLetters(job.run.dead_letters, job.run_id)
        outcomes | "WriteAudit" >> WriteAudit(job.run)

        tallies = [failures | "TallyFailures" >> beam.Map(tally_failure)]
        for lane, name in ((main, "Main"), (again, "Repair")):
            tallies.append(lane.pending | f"Tally{name}Pending" >> beam.Map(tally_pending))
            tallies.append(lane.reused | f"Tally{name}Reused" >> beam.Map(tally_reused))
        counts = outcomes | "ConserveRows" >> ConserveRows(read.positions)
        counts | "CloseRun" >> CloseRun(job.run, job.ledger, tallies)
        return EnrichRowsResult(rows, failures, outcomes)


class AskModelResult(NamedTuple):
    """ends: PCollections of (request_id, RequestResult or PendingRequest); reused: ModelAnswer from the ledger."""

    ends: list[pvalue.PCollection]
    repairs: pvalue.PCollection
    pending: pvalue.PCollection
    reused: pvalue.PCollection


class AskModel(beam.PTransform):
    """One lane: reuse, group, call, parse. The repair lane is the same path for the requests of invalid answers."""

    def __init__(self, job: PreparedJob, settled: pvalue.PCollection | None, *, repair: bool) -> None:
        super().__init__()
        self._job = job
        self._settled = settled
        self._repair = repair

    def expand(self, requests: pvalue.PCollection) -> Any:
        """Parse reused and new answers apart: a Flatten between call and parse would hold all answers in memory."""
        job = self._job
        known = requests | "ReuseAnswers" >> ReuseAnswers(self._settled)
        groups = known.fresh | "GroupRequests" >> GroupRequests(job.provider_name, job.request_model, job.batching)
        calls = groups | "CallModel" >> CallModel(job.call_settings)
        new = calls.answers | "ParseAnswers" >> ParseAnswers(job.reader, job.identity, repair=self._repair)
        old = known.answers | "ParseReused" >> ParseAnswers(job.reader, job.identity, repair=self._repair)
        repairs = (new.repairs, old.repairs) | "FlattenRepairs" >> beam.Flatten()
        return AskModelResult([new.results, old.results, calls.pending], repairs, calls.pending, known.answers)


def main(argv: list[str] | None = None) -> int:
    """Run a job as a plain Beam program; returns the exit code of DESIGN section 6."""
    from pipelines.job import load_job
    from pipelines.options import EnrichOptions
    from pipelines.run import RunRequest, run_job

    arguments = sys.argv[1:] if argv is None else argv
    options = EnrichOptions(arguments)
    result = run_job(RunRequest(load_job(options.job, options.set), arguments))
    print(result.sentence or f"done: {result.summary['outputs']['enriched']}", file=sys.stderr)  # noqa: T201
    return result.exit_code


if __name__ == "__main__":
    # The module that runs is __main__; stages must be pickled under their importable name.
    from pipelines.enrich import main as importable_main

    sys.exit(importable_main())
