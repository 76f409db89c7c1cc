"""The main job's pipeline with every branch, built and not run: what the guards of the graph look at."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.guards.sources import ROOT

#: Real time, or by batch with batches of earlier runs in flight.
PATHS = ("batch", "real_time")
_BY_BATCH = ("model.provider=openai", "model.name=gpt-4o-mini", "batching.mode=auto", "batching.retry_failed=batch")


def build_path(path: str, output: Path, options: Any = None) -> Any:
    """Return the pipeline of one of PATHS: failed rows are kept, and an earlier run has left a ledger.

    Args:
        path: which.
        output: an empty folder.
        options: Beam's; None for its own.
    """
    import apache_beam as beam

    from pipelines.enrich import EnrichRows
    from pipelines.job import load_job
    from pipelines.prepare import prepare
    from pipelines.runners import remembered_signatures
    from transforms.storage.lease import Lease

    (output / "ledger" / "answers").mkdir(parents=True)
    (output / "ledger" / "answers" / "20250101T000000-000000-0.jsonl").touch()
    job = ROOT / "pipelines" / "jobs" / "reviews" / "job.yaml"
    loaded = load_job(str(job), [f"output={output}", "on_failure=keep", *(_BY_BATCH if path == "batch" else ())])
    prepared = prepare(loaded, "20260101T000000-000000")
    if path == "batch":
        prepared = replace(prepared, open_batches=["0" * 64])
    pipeline = beam.Pipeline(options=options)
    with remembered_signatures(), Lease(prepared.ledger, prepared.run_id):
        pipeline | "EnrichRows" >> EnrichRows(prepared)
    return pipeline
