"""Collecting in one process: the DoFn of CollectBatches over batches that have ended. Run by `processes.run_child`."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from tests.benchmarks.batch_case import call_settings, refs
from tests.benchmarks.case import KEY, KEY_ENV
from tests.benchmarks.memory import MemoryWatch
from tests.benchmarks.processes import give_result
from tests.benchmarks.profiling import profiled
from transforms.collect_batches import _CollectBatchDoFn
from transforms.records.answer import ModelAnswer
from transforms.records.batch import BatchTurn, Turn
from transforms.records.failure import FailureKind


def main(arguments: dict[str, Any]) -> None:
    """Collect every batch of the ledger, its results from `base_url`.

    Inside `run_s`: the download to disk, the reading, the ledger with its syncs, and the answers, which nobody keeps.
    Before it, as a run does while its first batch waits: reading the price list.
    """
    os.environ[KEY_ENV] = KEY
    folder = Path(arguments["folder"])
    settings = call_settings(folder, arguments["base_url"])
    turns = [BatchTurn(ref, Turn.ENDED) for ref in refs(folder, settings)]
    collect = _CollectBatchDoFn(settings)
    collect.setup()
    recorder = collect._desk.worker.pool.recorder
    recorder.prices.rates(recorder.provider_name, recorder.price_model)
    with profiled(arguments.get("profile")), MemoryWatch() as watch:
        cpu, started = time.process_time(), time.perf_counter()
        for turn in turns:
            for item in collect.process(turn):
                if isinstance(item, ModelAnswer) and item.kind is FailureKind.OK:
                    watch.rows_done += 1
        run_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    collect.teardown()
    give_result({"rows": watch.rows_done, "run_s": run_s, "cpu_s": cpu_s, **watch.facts()})


if __name__ == "__main__":
    main(orjson.loads(sys.argv[1]))
