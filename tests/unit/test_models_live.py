"""`rowbeam check` against a provider's models list, over real HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import model_list
from pipelines.check import check_job
from pipelines.job import load_job
from pipelines.prepare import prepare
from pipelines.sandbox.running import RunningSandbox

KEYS = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY", "AZURE_OPENAI_API_KEY"), "any-key")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    """Serve a sandbox to all tests of this module."""
    with RunningSandbox() as running:
        yield running


def check(
    folder: Path, sandbox: RunningSandbox, model: dict[str, Any], environ: dict[str, str] = KEYS
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], int]:
    """Check a job with this model at the sandbox; return findings by name, what is served, and the exit code."""
    (folder / "rows.csv").write_text("id,text\nA,good\n", encoding="utf-8")
    job = {
        "name": "reviews",
        "input": {"path": "rows.csv", "key": ["id"]},
        "output": "out",
        "prompt": {"template": "Rate: {{ row.text }}"},
        "answer": {"field": "label"},
        "model": {"base_url": sandbox.base_url(model["provider"])} | model,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    facts, exit_code = check_job(prepare(load_job(str(folder / "job.yaml")), "check"), environ)
    return {entry["name"]: entry for entry in facts["checks"]}, facts["models"], exit_code


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"provider": "openai", "name": "gpt-4o-mini"}, id="openai-by-its-snapshot"),
        pytest.param({"provider": "anthropic", "name": "claude-haiku-4-5"}, id="anthropic"),
        pytest.param({"provider": "openrouter", "name": "openai/gpt-6-luna"}, id="openrouter"),
        pytest.param({"provider": "openrouter", "name": "openai/gpt-6-luna:nitro"}, id="openrouter-variant"),
    ],
)
def test_a_served_model_passes(tmp_path: Path, sandbox: RunningSandbox, model: dict[str, Any]) -> None:
    """Under any of its names; and it is told which listed models are not served."""
    found, models, exit_code = check(tmp_path, sandbox, model)
    assert exit_code == 0
    assert found["model"]["ok"] is True
    assert models["complete"]
    assert models["served"] >= 3
    assert models["served"] + len(models["not_served"]) == models["listed"]
    assert (
        f"{models['served']} of the manifest's {models['listed']} models of {model['provider']}"
        in (found["manifest"]["says"])
    )
    assert models["not_served"][0] in found["manifest"]["says"]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"provider": "openai", "name": "gpt-5.6-terra"}, id="openai"),
        pytest.param({"provider": "anthropic", "name": "claude-fable-5"}, id="anthropic"),
        pytest.param({"provider": "openrouter", "name": "openai/gpt-6-luna:free"}, id="openrouter"),
    ],
)
def test_a_model_that_is_not_served_ends_with_2(tmp_path: Path, sandbox: RunningSandbox, model: dict[str, Any]) -> None:
    """The list is complete, so the first call would be refused."""
    found, _, exit_code = check(tmp_path, sandbox, model)
    assert exit_code == 2
    assert found["model"]["ok"] is False
    assert f"{model['name']} is not among the" in found["model"]["says"]


def test_azures_list_says_nothing_of_deployments(tmp_path: Path, sandbox: RunningSandbox) -> None:
    """Whether the base model is listed or not, the deployment shows at the first call."""
    model = {"provider": "azure_openai", "name": "gpt-4o-mini", "deployment": "labels"}
    found, models, exit_code = check(tmp_path, sandbox, model)
    assert exit_code == 0
    assert found["model"]["ok"] is None
    assert "whether labels serves it shows at the first call" in found["model"]["says"]
    assert not models["complete"]
    assert "announced" in found["warning"]["says"]


def test_a_long_list_is_read_page_by_page(
    tmp_path: Path, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anthropic's has_more and last_id lead to the last model (providers.md 4.1)."""
    monkeypatch.setattr(model_list, "_PAGE", 3)
    found, models, exit_code = check(tmp_path, sandbox, {"provider": "anthropic", "name": "claude-sonnet-4-5"})
    assert (exit_code, found["model"]["ok"], models["complete"]) == (0, True, True)
    monkeypatch.setattr(model_list, "_MAX_PAGES", 1)
    found, models, exit_code = check(tmp_path, sandbox, {"provider": "anthropic", "name": "claude-sonnet-4-5"})
    assert (exit_code, found["model"]["ok"], models["complete"]) == (0, None, False)


@pytest.mark.parametrize(
    ("provider", "name", "variable"),
    [
        pytest.param("openai", "gpt-6-luna", "OPENAI_API_KEY", id="openai"),
        pytest.param("anthropic", "claude-haiku-4-5", "ANTHROPIC_API_KEY", id="anthropic"),
        pytest.param("openrouter", "openai/gpt-6-luna", "OPENROUTER_API_KEY", id="openrouter-whose-list-is-public"),
    ],
)
def test_a_refused_key_ends_with_6_and_tells_of_no_models(
    tmp_path: Path, sandbox: RunningSandbox, provider: str, name: str, variable: str
) -> None:
    """A list that anyone may read proves nothing of the key."""
    found, models, exit_code = check(tmp_path, sandbox, {"provider": provider, "name": name}, {variable: "bad-key"})
    assert exit_code == 6
    assert "refused the key" in found["provider"]["says"]
    assert models is None
    assert "model" not in found


def test_a_server_of_ones_own_may_answer_to_other_names(tmp_path: Path, sandbox: RunningSandbox) -> None:
    """Its list is a hint; there is no manifest to compare it with."""
    found, models, exit_code = check(
        tmp_path, sandbox, {"provider": "openai_compatible", "name": "mine", "api_key_env": "OPENAI_API_KEY"}
    )
    assert exit_code == 0
    assert found["model"]["ok"] is None
    assert models is None
