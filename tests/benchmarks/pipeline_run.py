"""The whole of Rowbeam in one process: a job file in, `run_job`, and what it took. Run by `processes.run_child`.

With `instant`, the transport is replaced by one that answers at once: what is left is Rowbeam's and Beam's own work.
"""

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from tests.benchmarks.canned import OPENAI_BODY, OPENAI_HEADERS
from tests.benchmarks.case import KEY, KEY_ENV
from tests.benchmarks.processes import give_result
from tests.benchmarks.profiling import profiled
from transforms.providers import pool
from transforms.records.reply import HttpRequest, HttpResponse


class InstantTransport:
    """Stands in for HttpTransport: every exchange ends at once, with the same answer."""

    def __init__(self, *, connections: int | None = None) -> None:
        self._connections = connections

    async def send(self, _request: HttpRequest, _timeout_s: float) -> HttpResponse:
        """Answer."""
        return HttpResponse(200, dict(OPENAI_HEADERS), OPENAI_BODY)

    async def close(self) -> None:
        """Do nothing."""


def call_phase(audit: str) -> dict[str, float]:
    """Return the calls' own time, from the first call's start to the last one's end, and the rate over it."""
    files = sorted(Path(audit, "calls").glob("*.parquet"))
    table = pq.ParquetDataset(files).read(["started_at", "latency_ms"]) if files else None
    if table is None or not table.num_rows:
        return {"phase_s": 0.0, "phase_calls_per_s": 0.0, "to_first_call_s": 0.0}
    starts = table.column("started_at").cast("int64").to_pylist()
    ends = [start + took * 1000 for start, took in zip(starts, table.column("latency_ms").to_pylist(), strict=True)]
    phase_s = (max(ends) - min(starts)) / 1e6
    return {"phase_s": phase_s, "phase_calls_per_s": len(starts) / phase_s, "first_call_at": min(starts) / 1e6}


def main(arguments: dict[str, Any]) -> None:
    """Run the job once and give its times.

    What is inside `run_s`: checking the job, the lease, building the pipeline, importing Beam, the pipeline itself
    with ledger and Parquet, the audit tables, the manifest. Outside: starting Python, importing this module.
    """
    os.environ[KEY_ENV] = KEY
    from pipelines.job import load_job
    from pipelines.logs import setup_logs
    from pipelines.run import RunRequest, run_job

    setup_logs("warning", "json", [])
    if arguments.get("instant"):
        pool.HttpTransport = InstantTransport  # type: ignore[assignment,misc]
    loaded = load_job(arguments["job"])
    clock, cpu, started = time.time(), time.process_time(), time.perf_counter()
    with profiled(arguments.get("profile")):
        result = run_job(RunRequest(loaded, arguments.get("beam_args", ())))
    run_s = time.perf_counter() - started
    cpu_s = time.process_time() - cpu
    summary = result.summary
    phase = call_phase(summary["outputs"]["audit"])
    phase["to_first_call_s"] = max(0.0, phase.pop("first_call_at", clock) - clock)
    give_result(
        {
            "rows": summary["rows"],
            "calls": summary["calls"],
            "exit_code": result.exit_code,
            "run_s": run_s,
            "rows_per_s": summary["rows"]["in"] / run_s,
            "cpu_s": cpu_s,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            **phase,
        }
    )


if __name__ == "__main__":
    main(orjson.loads(sys.argv[1]))
