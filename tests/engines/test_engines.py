"""The runner makes no difference (P10): the same job gives the same rows on every engine, and the same bill."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.job import load_job
from pipelines.run import RunRequest, run_job
from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import Output, answers_by_id, plain_rows, write_csv, write_job
from tests.conformance.verified_outputs import findings
from tests.engines.flink_cluster import FlinkCluster

ROWS = 200
_BATCHING = {
    "real_time": {"mode": "per_request", "group_size": 20},
    "batch": {"mode": "provider_batch_api", "poll_interval": "200ms", "settle": "100ms", "max_requests": 50},
}


def _run(folder: Path, sandbox: RunningSandbox, mode: str, options: Sequence[str]) -> list[dict[str, Any]]:
    folder.mkdir()
    write_csv(folder / "reviews.csv", plain_rows(ROWS))
    inputs = {"path": str(folder / "reviews.csv"), "key": ["id"]}
    job = write_job(
        folder,
        sandbox.base_url("openai"),
        input=inputs,
        output=str(folder / "out"),
        batching=_BATCHING[mode],
        model={"api_key_env": "OPENAI_API_KEY"},
    )
    result = run_job(RunRequest(load_job(str(job), ()), options))
    assert (result.exit_code, result.sentence) == (0, "")
    assert result.summary["rows"] == {"in": ROWS, "enriched": ROWS, "dead_lettered": 0, "pending": 0}
    output = Output(folder / "out")
    assert findings(output.folder) == []
    return output.enriched(result.summary["run_id"])


@pytest.fixture(scope="module")
def expected(
    shared_sandbox: RunningSandbox, sandbox_key: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """The rows of each mode, by id, as FnApiRunner gives them in one process."""
    assert sandbox_key
    folder = tmp_path_factory.mktemp("expected")
    return {mode: answers_by_id(_run(folder / mode, shared_sandbox, mode, [])) for mode in _BATCHING}


@pytest.mark.parametrize("mode", _BATCHING)
def test_an_engine_gives_the_rows_that_the_local_runner_gives(
    mode: str,
    engine: list[str],
    expected: dict[str, dict[str, Any]],
    sandbox: RunningSandbox,
    workdir: Path,
) -> None:
    """Every row is there once with the same answer, and every request was paid once."""
    rows = answers_by_id(_run(workdir / "job", sandbox, mode, engine))
    assert rows == expected[mode]
    bill = sandbox.bill()
    assert (bill["accepted"] + bill["batch_billed"], bill["paid_twice"]) == (ROWS, 0)
    # Each of two workers may leave its last batch of a shard part-filled.
    fewest = ROWS // 50 if mode == "batch" else 0
    assert fewest <= bill["batch_count"] <= 2 * fewest


def test_a_cluster_goes_on_without_a_task_manager_and_takes_a_new_one(flink_cluster: FlinkCluster) -> None:
    """What tests of worker deaths stand on: a killed task manager is missed, and another joins in its place."""
    killed = next(iter(flink_cluster.task_managers))
    flink_cluster.kill_task_manager(killed)
    flink_cluster.wait_for(1)
    assert killed not in flink_cluster.task_managers
    flink_cluster.add_task_manager()
    flink_cluster.wait_for(2)
    assert flink_cluster.overview()["slots-available"] == 2
