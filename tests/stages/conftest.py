"""What tests of the batch stages start from: a stand-in for the provider, and runs of one job against it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stages.batch_stage_desk import MakeRun, open_runs
from tests.unit.batch_server import BatchServer, serving


@pytest.fixture
def server() -> Iterator[BatchServer]:
    """Stand in for the provider."""
    with serving() as one:
        yield one


@pytest.fixture
def make_run(server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRun]:
    """Make runs of one job."""
    with open_runs(server, tmp_path, monkeypatch) as make:
        yield make
