"""The engines as Beam options: what is not on this machine is skipped, and says why."""

import os
from collections.abc import Iterator

import pytest

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.server import RunningSandbox
from tests.engines.choice import write_worker_program
from tests.engines.fetch import FLINK_SERIES, Engines, find_engines
from tests.engines.flink_cluster import FlinkCluster

#: What tests run on; "+" tells where the job's Python runs, if not in the launching process.
ENGINES = ("FnApiRunner+processes", "FnApiRunner+threads", "PrismRunner", "PrismRunner+process", "FlinkRunner+process")


@pytest.fixture(scope="session")
def found_engines() -> Engines:
    """What is there."""
    return find_engines()


@pytest.fixture(scope="session")
def worker_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that starts Beam's Python worker with this Python and these sources, as `rowbeam-worker` does."""
    return write_worker_program(tmp_path_factory.mktemp("worker"))


@pytest.fixture(scope="session")
def sandbox_key(_closed_world: None) -> Iterator[str]:
    """A key for the sandbox, there before any cluster starts: what a worker knows it has from its engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-sandbox-key-0123456789")
        yield os.environ["OPENAI_API_KEY"]


@pytest.fixture(scope="session")
def flink_cluster(
    found_engines: Engines, sandbox_key: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlinkCluster]:
    """A cluster of one job manager and two task managers, for all tests of the session."""
    assert sandbox_key
    missing = found_engines.missing_for_cluster()
    if missing:
        pytest.skip(missing)
    assert found_engines.flink is not None
    with FlinkCluster(found_engines.flink, tmp_path_factory.mktemp("flink") / "cluster") as cluster:
        yield cluster


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, found_engines: Engines, worker_program: str, sandbox_key: str) -> list[str]:
    """The Beam options of an engine."""
    assert sandbox_key
    name, _, place = request.param.partition("+")
    if name == "FnApiRunner":
        return ["--direct_num_workers=2", *(["--direct_running_mode=multi_threading"] if place == "threads" else [])]
    missing = found_engines.missing_for_prism() if name == "PrismRunner" else found_engines.missing_for_flink()
    if missing:
        pytest.skip(missing)
    options = [f"--runner={name}"]
    if place:
        options += ["--environment_type=PROCESS", f"--environment_option=process_command={worker_program}"]
    if name == "PrismRunner":
        return [*options, f"--prism_location={found_engines.prism}"]
    cluster: FlinkCluster = request.getfixturevalue("flink_cluster")
    jar = f"--flink_job_server_jar={found_engines.job_server}"
    return [*options, f"--flink_master={cluster.address}", f"--flink_version={FLINK_SERIES}", jar, "--parallelism=2"]


@pytest.fixture(scope="session")
def shared_sandbox(_closed_world: None) -> Iterator[RunningSandbox]:
    """One sandbox for all tests; a batch takes a second."""
    with RunningSandbox(latency_s=0.02, batch=BatchTiming(validating_s=0.1, queue_s=0.1, duration_s=1.0)) as running:
        yield running


@pytest.fixture
def sandbox(shared_sandbox: RunningSandbox, sandbox_key: str, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """The sandbox in order and with an empty bill."""
    monkeypatch.setenv("OPENAI_API_KEY", sandbox_key)
    shared_sandbox.set_faults()
    shared_sandbox.reset()
    return shared_sandbox


@pytest.fixture
def slow_sandbox(sandbox_key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningSandbox]:
    """A sandbox slow enough for a worker to be killed in the middle."""
    monkeypatch.setenv("OPENAI_API_KEY", sandbox_key)
    with RunningSandbox(latency_s=0.4, batch=BatchTiming(validating_s=0.1, queue_s=0.1, duration_s=4.0)) as running:
        yield running
