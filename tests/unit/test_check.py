"""`rowbeam check`: the key and the provider, by one free request over real HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.check import check_job
from pipelines.job import load_job
from pipelines.prepare import prepare
from pipelines.sandbox.running import RunningSandbox
from tests.unit.secret_service import NAME, serving_secrets
from transforms.providers import secret


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    """Serve a sandbox to all tests of this module."""
    with RunningSandbox() as running:
        yield running


def check(folder: Path, model: dict[str, Any], environ: dict[str, str]) -> tuple[dict[str, Any], int]:
    """Check a job with this model; return findings by name, and the exit code."""
    (folder / "rows.csv").write_text("id,text\nA,good\n", encoding="utf-8")
    job = {
        "name": "reviews",
        "input": {"path": "rows.csv", "key": ["id"]},
        "output": "out",
        "prompt": {"template": "Rate: {{ row.text }}"},
        "answer": {"field": "label"},
        "model": {"name": "gpt-4o-mini-2024-07-18"} | model,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    facts, exit_code = check_job(prepare(load_job(str(folder / "job.yaml")), "check"), environ)
    assert facts["ok"] is (exit_code == 0)
    return {entry["name"]: entry for entry in facts["checks"]}, exit_code


def test_a_good_key_and_a_known_model_pass(sandbox: RunningSandbox, tmp_path: Path) -> None:
    """The models list answers and names the model; nothing is on the bill."""
    model = {"provider": "openai", "name": "gpt-6-luna", "base_url": sandbox.base_url("openai")}
    found, exit_code = check(tmp_path, model, {"OPENAI_API_KEY": "any-key"})
    assert exit_code == 0
    # That the sandbox serves few of the manifest's models is worth a note.
    assert [name for name, entry in found.items() if not entry["ok"]] == ["manifest"]
    assert "HTTP 200" in found["provider"]["says"]
    assert sandbox.stats()["requests"] >= 0


def test_a_refused_key_ends_with_6(sandbox: RunningSandbox, tmp_path: Path) -> None:
    """The provider's own words are shown."""
    model = {"provider": "openai", "base_url": sandbox.base_url("openai")}
    found, exit_code = check(tmp_path, model, {"OPENAI_API_KEY": "bad-key"})
    assert exit_code == 6
    assert "refused the key" in found["provider"]["says"]


def test_a_key_that_is_not_set_ends_with_2_and_sends_nothing(tmp_path: Path) -> None:
    """The variable is named; there is no finding about the provider."""
    found, exit_code = check(tmp_path, {"provider": "anthropic", "name": "claude-haiku-4-5"}, {})
    assert exit_code == 2
    assert "ANTHROPIC_API_KEY" in found["key"]["says"]
    assert "provider" not in found


def test_a_provider_that_does_not_answer_ends_with_2(tmp_path: Path) -> None:
    """The address is named, with the reason and the cure."""
    model = {"provider": "openai_compatible", "base_url": "http://127.0.0.1:9/v1"}
    found, exit_code = check(tmp_path, model, {})
    assert exit_code == 2
    assert "127.0.0.1:9" in found["provider"]["says"]
    assert "check model.base_url" in found["provider"]["says"]


def test_embedded_weights_that_are_missing_end_with_2(tmp_path: Path) -> None:
    """No request is made for a model in this process."""
    found, exit_code = check(tmp_path, {"provider": "llama_cpp", "gguf": "nowhere.gguf"}, {})
    assert exit_code == 2
    assert "nowhere.gguf" in found["weights"]["says"]


def test_a_key_from_secret_manager_is_tried(
    sandbox: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can't be read here, the line says why, and nothing is asked; no variable is looked at."""
    model = {"provider": "openai", "base_url": sandbox.base_url("openai"), "api_key_secret": NAME}
    monkeypatch.setattr(secret, "_values", {})
    with serving_secrets() as service:
        monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", service.address)
        found, exit_code = check(tmp_path, model, {"OPENAI_API_KEY": "another"})
        assert (exit_code, found["key"]["ok"], "provider" in found) == (2, False, False)
        assert found["key"]["says"].startswith(f"the secret {NAME}: Secret Manager answered 404")
        service.values[NAME] = b"any-key"
        found, _ = check(tmp_path, model, {})
    assert found["key"]["says"] == f"the secret {NAME} can be read here"
    assert "HTTP 200" in found["provider"]["says"]
