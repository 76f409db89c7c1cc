"""What a bucket or BigQuery says is told as it is: the place and the cure, without a word of what failed inside."""

import pytest

from pipelines.mishaps import judge
from pipelines.runners import beam_options
from transforms.records.errors import ConfigError
from transforms.storage.bigquery_client import WarehouseError
from transforms.storage.gcs import StorageError


@pytest.mark.parametrize("kind", [StorageError, WarehouseError])
@pytest.mark.parametrize(("running", "exit_code"), [(False, 2), (True, 3)])
def test_a_stores_words_are_the_sentence(kind: type[OSError], running: bool, exit_code: int) -> None:
    """Before a run it is the user's to put right; in one, what was answered stays."""
    mishap = judge(kind("gs://b/x: the bucket refuses; grant it"), running=running)
    assert mishap.exit_code == exit_code
    assert mishap.sentence.startswith("gs://b/x: the bucket refuses; grant it")
    assert ("answers so far are in the ledger" in mishap.sentence) == running


@pytest.mark.parametrize("runner", ["os.path", "no.such.Runner", "NoSuchRunner"])
def test_a_name_that_is_no_runner_is_one_line(runner: str) -> None:
    """Whatever it names instead."""
    with pytest.raises(ConfigError, match="correct the name, or leave it out to run here"):
        beam_options([f"--runner={runner}"])


def test_fewer_than_no_workers_is_one_line() -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match="--direct_num_workers=-3: write how many processes"):
        beam_options(["--direct_num_workers=-3"])
