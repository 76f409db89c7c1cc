"""Batches of earlier runs that a job must take up: found again, left alone, or a reason to refuse the job."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.job import load_job
from pipelines.plan import make_plan
from pipelines.prepare import PreparedJob, list_in_flight, prepare
from tests.unit.batch_phase_ledgers import ADDRESS, JOB, key_of, write_all_phases, write_submitted
from transforms.records.errors import ConfigError

_HOST = "https://res.openai.azure.com"
_AZURE: dict[str, Any] = {"provider": "azure_openai", "name": "gpt-4o-mini", "deployment": "now", "base_url": _HOST}
_BATCH_DEPLOYMENT = {"batch_deployment": "later"}


def prepared_job(folder: Path, model: dict[str, Any], **batching: Any) -> PreparedJob:
    """Write a job whose output is `folder/out`, and prepare it."""
    (folder / "rows.csv").write_text("id,text\nA,good\n", encoding="utf-8")
    job = JOB | {"model": model, "batching": batching, "output": str(folder / "out")}
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return prepare(load_job(str(folder / "job.yaml")), "r2")


def submit_to_azure(folder: Path, address: str) -> None:
    """Write a batch of an earlier run that Azure has."""
    write_submitted(folder / "out", provider_name="azure.ai.openai", address=address)


@pytest.mark.parametrize("mode", ["per_request", "auto"])
def test_every_phase_in_flight_is_taken_up(tmp_path: Path, mode: str) -> None:
    """In doubt, submitted and ended, whichever way fresh requests go."""
    write_all_phases(tmp_path / "out")
    job = prepared_job(tmp_path, JOB["model"], mode=mode)
    assert list_in_flight(job) == sorted(key_of(phase) for phase in ("in doubt", "submitted", "ended"))
    elsewhere = prepared_job(tmp_path, JOB["model"] | {"base_url": f"{ADDRESS}/two"}, mode=mode)
    assert list_in_flight(elsewhere) == []


@pytest.mark.parametrize("version", ["v1", "2024-10-21", "2025-04-01-preview"])
@pytest.mark.parametrize("before", [f"{_HOST}/openai/v1", f"{_HOST}/openai"])
def test_azures_batch_is_found_after_a_change_of_the_api_version(tmp_path: Path, before: str, version: str) -> None:
    """The request ids stay the same, so a batch not found would be paid for twice."""
    submit_to_azure(tmp_path, before)
    job = prepared_job(tmp_path, _AZURE | _BATCH_DEPLOYMENT | {"api_version": version})
    assert list_in_flight(job) == [key_of("submitted")]


def test_azures_batch_of_another_resource_is_not_this_jobs(tmp_path: Path) -> None:
    """Nor is it a reason to refuse the job."""
    submit_to_azure(tmp_path, "https://two.openai.azure.com/openai/v1")
    assert list_in_flight(prepared_job(tmp_path, _AZURE | _BATCH_DEPLOYMENT)) == []
    assert list_in_flight(prepared_job(tmp_path, _AZURE)) == []


def test_a_job_that_can_not_ask_for_its_batches_is_refused(tmp_path: Path) -> None:
    """One line with the key and how many; otherwise their requests would count as fresh and be paid for twice."""
    submit_to_azure(tmp_path, f"{_HOST}/openai/v1")
    job = prepared_job(tmp_path, _AZURE)
    assert job.batch_limits is None
    for ask in (list_in_flight, make_plan):
        with pytest.raises(ConfigError) as caught:
            ask(job)
        assert str(caught.value) == (
            "model.batch_deployment: 1 batch of an earlier run is in flight at azure.ai.openai and out of reach "
            "with this setting, so the same requests would be paid for twice; put it back as it was until all is "
            f"collected (rowbeam batches {tmp_path / 'out'} shows it)"
        )


def test_a_parameter_that_batches_refuse_is_named(tmp_path: Path) -> None:
    """The number counts all batches in flight at this provider."""
    write_all_phases(tmp_path / "out")
    model = {
        "provider": "openrouter",
        "name": "m",
        "allow_unlisted": True,
        "base_url": ADDRESS,
        "params": {"extra": {"models": ["a"]}},
    }
    assert list_in_flight(prepared_job(tmp_path, model)) == []
    for staged in (tmp_path / "out").rglob("staged.json"):
        staged.write_bytes(staged.read_bytes().replace(b'"openai"', b'"openrouter"'))
    with pytest.raises(ConfigError, match=r"^model\.params\.extra\.models: 3 batches of earlier runs are in flight at"):
        list_in_flight(prepared_job(tmp_path, model))
