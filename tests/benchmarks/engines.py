"""The same job on each engine that is here, beside FnApiRunner in one process: real time and by batch, one sandbox.

The engines are those that `make engines` fetches; one that is not there is left out, and said so.
"""

import tempfile
from pathlib import Path
from typing import Any

import orjson
import yaml

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.server import RunningSandbox
from tests.benchmarks.case import write_case
from tests.benchmarks.figures import Figure, Outcome
from tests.benchmarks.processes import run_child
from tests.engines.choice import write_worker_program
from tests.engines.fetch import find_engines

_IN_FLIGHT = 200
_LATENCY_S = 0.05
_MODES: dict[str, dict[str, Any]] = {
    "real time": {"mode": "per_request"},
    "batch": {"mode": "provider_batch_api", "poll_interval": "200ms", "settle": "100ms", "max_requests": 10_000},
}
_TIMING = BatchTiming(validating_s=0.1, queue_s=0.1, duration_s=1.0)


def measure(rows: int) -> Outcome:
    """Run the job once on each engine in each mode.

    Args:
        rows: of each run.
    """
    found = Outcome("engines", {"rows": rows, "in_flight": _IN_FLIGHT, "latency_s": _LATENCY_S})
    with tempfile.TemporaryDirectory(prefix="rowbeam-bench-") as folder:
        for engine, beam_args in _engines(Path(folder)).items():
            for mode in _MODES:
                if beam_args is None:
                    found.figures.append(
                        Figure(f"{mode}: {engine}", None, "rows/s", note=find_engines().missing_for_prism())
                    )
                    continue
                result = _run(Path(tempfile.mkdtemp(dir=folder)), rows, mode, beam_args)
                found.samples.append({"engine": engine, "mode": mode, **result})
                note = f"{result['run_s']:.0f} s, {result['peak_mb']:.0f} MB in the launching process"
                found.figures.append(Figure(f"{mode}: {engine}", result["rows_per_s"], "rows/s", note=note))
    return found


def _engines(folder: Path) -> dict[str, list[str] | None]:
    prism = find_engines().prism
    worker = f"--environment_option=process_command={write_worker_program(folder)}"
    on_prism = [f"--runner=PrismRunner --prism_location={prism}".split(), ["--environment_type=PROCESS", worker]]
    return {
        "FnApiRunner": [],
        "FnApiRunner, 2 processes": ["--direct_num_workers=2"],
        "Prism": None if prism is None else on_prism[0],
        "Prism, a worker process": None if prism is None else [*on_prism[0], *on_prism[1]],
    }


def _run(folder: Path, rows: int, mode: str, beam_args: list[str]) -> dict[str, Any]:
    with RunningSandbox(latency_s=_LATENCY_S, batch=_TIMING) as sandbox:
        path = write_case(
            folder, rows, sandbox.base_url("openai").removesuffix("/v1"), pool={"max_in_flight": _IN_FLIGHT}
        )
        job = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(job | {"batching": _MODES[mode]}), encoding="utf-8")
        result = run_child("pipeline_run", {"job": str(path), "beam_args": beam_args})
        bill = sandbox.bill()
    paid = bill["accepted"] + bill["batch_billed"]
    if (result["rows"]["enriched"], paid, bill["paid_twice"]) != (rows, rows, 0):
        raise RuntimeError(
            f"expected {rows} rows, each paid once; found {orjson.dumps([result['rows'], bill]).decode()}"
        )
    return result
