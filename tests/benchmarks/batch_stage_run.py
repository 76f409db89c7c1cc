"""Staging in one process: the DoFn of StageBatches over requests that lie ready. Run by `processes.run_child`."""

import sys
import time
from pathlib import Path
from typing import Any

import orjson

from tests.benchmarks.batch_case import BATCH_REQUESTS, asked_folder, call_settings, read_groups
from tests.benchmarks.memory import MemoryWatch
from tests.benchmarks.processes import give_result
from tests.benchmarks.profiling import profiled
from transforms.stage_batches import _StageBatchDoFn


def main(arguments: dict[str, Any]) -> None:
    """Stage all of `<folder>/packets`.

    Inside `run_s`: reading the packets from their file, and all that the stage does, until the batches are durable.
    """
    folder = Path(arguments["folder"])
    settings = call_settings(folder, "http://127.0.0.1:9")
    stage = _StageBatchDoFn(settings, asked_folder(folder), BATCH_REQUESTS)
    stage.setup()
    staged = 0
    watch = MemoryWatch()

    def counted(group: Any) -> Any:
        for packet in group:
            yield packet
            watch.rows_done += len(packet)

    with profiled(arguments.get("profile")), watch:
        cpu, started = time.process_time(), time.perf_counter()
        for number, group in enumerate(read_groups(folder)):
            staged += sum(ref.request_count for ref in stage.process((number, counted(group))))
        run_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    give_result({"rows": staged, "run_s": run_s, "cpu_s": cpu_s, **watch.facts()})


if __name__ == "__main__":
    main(orjson.loads(sys.argv[1]))
