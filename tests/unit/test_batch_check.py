"""Batching settings that can't work are told in one line before anything runs."""

from typing import Any

import pytest

from pipelines.batch_check import check_batching, find_batch_api
from transforms.providers import make_provider
from transforms.records.errors import ConfigError
from transforms.records.settings import Job

JOB: dict[str, Any] = {
    "name": "j",
    "input": {"path": "rows.csv"},
    "output": "out",
    "prompt": {"template": "{{ row.text }}"},
    "answer": {"field": "label"},
}
OPENAI = {"provider": "openai", "name": "gpt-4o-mini"}
LOCAL = {"provider": "openai_compatible", "name": "m", "base_url": "http://127.0.0.1:8000/v1"}


def make_job(model: dict[str, Any], batching: dict[str, Any]) -> Job:
    """Return a checked job."""
    return Job.model_validate(JOB | {"model": model, "batching": batching})


def check(model: dict[str, Any], batching: dict[str, Any]) -> None:
    """Check a job as a run does."""
    job = make_job(model, batching)
    api, _ = find_batch_api(job, None, make_provider(job.model, None))
    check_batching(job, api is not None)


@pytest.mark.parametrize(
    ("model", "batching", "sentence"),
    [
        pytest.param(LOCAL, {"mode": "provider_batch_api"},
                     "batching.mode: openai_compatible has no batch API; use per_request, serial_bundle or auto", id="no API"),
        pytest.param(OPENAI, {"mode": "provider_batch_api", "allowed_providers": ["anthropic"]},
                     "batching.mode: batching.allowed_providers leaves out openai; add it there, or use per_request, "
                     "serial_bundle or auto", id="not allowed"),
        pytest.param(OPENAI, {"mode": "provider_batch_api", "allowed_providers": []},
                     "batching.mode: batching.allowed_providers leaves out openai; add it there, or use per_request, "
                     "serial_bundle or auto", id="none allowed"),
        pytest.param(OPENAI, {"allowed_providers": ["openai", "llama_cpp"]},
                     "batching.allowed_providers: llama_cpp has no batch API; take it out (there are: openai, "
                     "azure_openai, anthropic, openrouter)", id="allowed, and has none"),
        pytest.param(OPENAI, {"detach": True},
                     "batching.detach: there is no batch to leave behind in mode per_request; remove it, or set "
                     "batching.mode to provider_batch_api or auto", id="detach from calls"),
        pytest.param(OPENAI, {"detach": True, "mode": "serial_bundle"},
                     "batching.detach: there is no batch to leave behind in mode serial_bundle; remove it, or set "
                     "batching.mode to provider_batch_api or auto", id="detach from bundles"),
    ],
)  # fmt: skip
def test_a_contradiction_is_one_line_with_key_and_cure(
    model: dict[str, Any], batching: dict[str, Any], sentence: str
) -> None:
    """The key comes first, and what to do last."""
    with pytest.raises(ConfigError) as caught:
        check(model, batching)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("model", "batching"),
    [
        pytest.param(OPENAI, {}, id="default"),
        pytest.param(OPENAI, {"mode": "provider_batch_api"}, id="batch"),
        pytest.param(OPENAI, {"mode": "provider_batch_api", "allowed_providers": ["openai"], "detach": True}, id="detach"),
        pytest.param(OPENAI, {"mode": "auto", "allowed_providers": ["anthropic"]}, id="auto, not allowed"),
        pytest.param(LOCAL, {"mode": "auto", "detach": True}, id="auto, without an API"),
        pytest.param(LOCAL, {"mode": "serial_bundle", "allowed_providers": []}, id="none allowed, none needed"),
    ],
)  # fmt: skip
def test_what_can_work_is_let_through(model: dict[str, Any], batching: dict[str, Any]) -> None:
    """Mode auto goes real time where there is nothing else."""
    check(model, batching)


def test_why_there_is_no_batch_api_is_said() -> None:
    """One clause for the plan."""
    job = make_job(LOCAL, {})
    assert find_batch_api(job, None, make_provider(job.model, None)) == (None, "openai_compatible has no batch API")
