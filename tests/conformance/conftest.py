"""Whole runs against a sandbox: what every conformance test starts from."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.server import RunningSandbox
from tests.conformance.batch_jobs import KEY, KEYS, Workshop
from tests.conformance.jobs import Output, plain_rows, write_csv, write_job
from tests.conformance.verified_outputs import MARK, _outputs_hold

__all__ = ["_outputs_hold"]


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark of tests that damage their outputs."""
    config.addinivalue_line("markers", f"{MARK}(reason): the test damages its outputs; they are not verified")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that takes a runner the one that `--engine` names."""
    if "runner" in metafunc.fixturenames:
        metafunc.parametrize("runner", [metafunc.config.getoption("--engine")], indirect=True, scope="session")


@pytest.fixture(scope="session")
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Beam runner, with what it is to be told; every promise holds on each (P10)."""
    if request.param == "FnApiRunner":
        return "FnApiRunner"
    from tests.engines.choice import engine_words

    words = engine_words(request.param, tmp_path_factory)
    if words.missing:
        pytest.skip(words.missing)
    return words.runner


@pytest.fixture(scope="session")
def shared_sandbox(_closed_world: None) -> Iterator[RunningSandbox]:
    """One sandbox for all tests of a process."""
    with RunningSandbox(latency_s=0.01) as running:
        yield running


@pytest.fixture
def sandbox(shared_sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """The sandbox, in order and with an empty bill, and a key for it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sandbox-key-0123456789")
    shared_sandbox.set_faults()
    shared_sandbox.reset()
    return shared_sandbox


@pytest.fixture
def make_job(workdir: Path, sandbox: RunningSandbox) -> Callable[..., Path]:
    """Write a job file for the sandbox; rows: the input (30 plain rows unless given)."""

    def make(rows: list[dict[str, str]] | None = None, **changes: Any) -> Path:
        write_csv(workdir / "reviews.csv", plain_rows(30) if rows is None else rows)
        return write_job(workdir, sandbox.base_url("openai"), **changes)

    return make


@pytest.fixture
def output(workdir: Path) -> Output:
    """The output folder of the job."""
    return Output(workdir / "out")


@pytest.fixture(scope="session")
def shared_batch_sandbox(_closed_world: None) -> Iterator[RunningSandbox]:
    """One sandbox for all tests of batches of a process; a batch takes a fifth of a second."""
    with RunningSandbox(batch=BatchTiming(validating_s=0.02, queue_s=0.02, duration_s=0.2)) as running:
        yield running


@pytest.fixture
def workshop(
    workdir: Path, shared_batch_sandbox: RunningSandbox, runner: str, monkeypatch: pytest.MonkeyPatch
) -> Workshop:
    """A folder for a batch job, the sandbox in order and with an empty bill, and keys for it."""
    for name in KEYS:
        monkeypatch.setenv(name, KEY)
    shared_batch_sandbox.set_faults()
    shared_batch_sandbox.reset()
    return Workshop(workdir, shared_batch_sandbox, runner)
