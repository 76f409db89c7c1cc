"""serial_bundle: the same rows as per_request, over few connections (P10's sibling: the mode makes no difference)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipelines.enrich import EnrichRows
from pipelines.job import load_job
from pipelines.run import opened
from pipelines.runners import beam_options
from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import Output, answers_by_id, beam_args, plain_rows, run

MakeJob = Callable[..., Path]

_IN_FLIGHT = 6
_ROWS = 120


def _bundle_sizes(result: Any) -> list[Any]:
    """Return the distributions of the metric bundle_size, one for each lane."""
    found = result.metrics().query(beam.metrics.MetricsFilter().with_name("bundle_size"))["distributions"]
    assert {one.key.metric.namespace for one in found} == {"CallModel"}
    return [one.committed for one in found]


def test_serial_bundles_give_the_same_rows_over_few_connections(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """Up to 8 requests follow each other on one connection, never more than max_in_flight at once, with faults too."""
    job = make_job(plain_rows(_ROWS), pool={"max_in_flight": _IN_FLIGHT})
    sandbox.set_faults(server_error=0.05, refusal=0.05, wrong_json=0.05)
    singly = run(job, runner=runner)
    before, dead = output.enriched(singly.summary["run_id"]), output.dead_letters(singly.summary["run_id"])

    sandbox.reset()
    with opened(load_job(str(job), ["batching.mode=serial_bundle", "output=bundled"])) as opened_run:
        pipeline = beam.Pipeline(options=beam_options(beam_args(runner)))
        _ = pipeline | "EnrichRows" >> EnrichRows(opened_run.job)
        result = pipeline.run()
        result.wait_until_finish()

    run_id = opened_run.job.run_id
    stats, bundled = sandbox.stats(), Output(job.parent / "bundled")
    assert answers_by_id(bundled.enriched(run_id)) == answers_by_id(before)
    kinds = {letter["row_id"]: letter["kind"] for letter in bundled.dead_letters(run_id)}
    assert kinds == {letter["row_id"]: letter["kind"] for letter in dead}
    assert stats["peak_concurrency"] <= _IN_FLIGHT
    # One more connection is the one that asks for the statistics.
    assert stats["peak_connections"] <= _IN_FLIGHT + 1
    sizes = _bundle_sizes(result)
    assert 1 < max(size.max for size in sizes) <= 8
    assert sum(size.sum for size in sizes) == stats["requests"]
