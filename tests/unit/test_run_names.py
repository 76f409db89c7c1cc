"""How a run is named: its id, a clear beginning of it, latest, previous."""

from pathlib import Path

import pytest

from pipelines.run_facts import run_facts
from pipelines.run_tables import find_run
from tests.unit.cli_outputs import RUN_1, RUN_2
from tests.unit.facts_outputs import facts_job, write_answers, write_facts_run
from transforms.records.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("20261121", "is the beginning of 2 runs", id="ambiguous"),
        pytest.param("2025", "has no run 2025", id="unknown"),
        pytest.param("", "has no run", id="empty"),
    ],
)
def test_a_run_that_is_not_clear_is_named(tmp_path: Path, name: str, message: str) -> None:
    """The line says what there is."""
    for run_id in (RUN_1, RUN_2):
        write_facts_run(tmp_path, run_id, job=facts_job())
    with pytest.raises(ConfigError, match=message):
        find_run(str(tmp_path), name)
    asked = (RUN_1, RUN_1[:12], "previous", "latest", None)
    assert [find_run(str(tmp_path), each).run_id for each in asked] == [RUN_1, RUN_1, RUN_1, RUN_2, RUN_2]


def test_an_output_without_runs_is_refused(tmp_path: Path) -> None:
    """So is "previous" where there is one run."""
    with pytest.raises(ConfigError, match="holds no run"):
        run_facts(str(tmp_path))
    write_answers(tmp_path, ["good"])
    with pytest.raises(ConfigError, match="only one run"):
        run_facts(str(tmp_path), "previous")
