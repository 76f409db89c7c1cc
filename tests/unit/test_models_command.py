"""`rowbeam models`: the manifest with prices, for people and for programs."""

import io
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from pipelines.model_catalog import LISTED_PROVIDERS
from pipelines.models_command import list_models, models_to_screen
from pipelines.models_text import draw_models
from pipelines.screen import Screen
from transforms.records.errors import ConfigError
from transforms.records.model_entry import ModelEntry
from transforms.records.settings import Job

TODAY = date(2026, 11, 21)
KEYS = {*ModelEntry.model_fields, "status", "is_jobs", "usd_per_million_tokens"}


def job_of(model: dict[str, Any]) -> Job:
    """Return a job with this model."""
    return Job.model_validate(
        {
            "name": "reviews",
            "input": {"path": "rows.csv"},
            "output": "out",
            "prompt": {"template": "x"},
            "answer": {"field": "label"},
            "model": {"provider": "openai"} | model,
        }
    )


def drawn(facts: dict[str, Any], width: int = 130) -> str:
    """Return the picture as text."""
    text = io.StringIO()
    draw_models(facts, Console(file=text, width=width, highlight=False, markup=False, emoji=False))
    return text.getvalue()


def by_name(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the models by name."""
    return {model["name"]: model for model in facts["models"]}


def test_all_providers_with_stable_keys() -> None:
    """Each model has every key; the counts add up."""
    facts = list_models(None, None, TODAY)
    assert {model["provider"] for model in facts["models"]} == set(LISTED_PROVIDERS)
    assert all(set(model) == KEYS for model in facts["models"])
    assert sum(facts["counts"].values()) == len(facts["models"])
    assert set(facts) == {"provider", "job", "today", "counts", "models"}
    orjson.dumps(facts)


def test_prices_are_text_in_plain_digits() -> None:
    """Real time and batch, in and out; null where the table has none."""
    models = by_name(list_models("openai", None, TODAY))
    assert models["gpt-4o-mini-2024-07-18"]["usd_per_million_tokens"] == {
        "real_time": {"input": "0.15", "output": "0.6"},
        "batch": {"input": "0.075", "output": "0.3"},
    }
    azure = by_name(list_models("azure_openai", None, TODAY))
    assert azure["gpt-4o-mini-2024-07-18"]["usd_per_million_tokens"]["batch"] is None


def test_the_status_is_todays() -> None:
    """The same entry, on both sides of its days."""
    for today, status in ((date(2026, 11, 21), "deprecated"), (date(2026, 11, 30), "overdue")):
        assert by_name(list_models("anthropic", None, today))["claude-sonnet-4-5-20250929"]["status"] == status
    assert by_name(list_models("openai", None, TODAY))["gpt-4-32k-0613"]["status"] == "retired"


def test_a_job_marks_its_model_and_brings_its_own(tmp_path: Path) -> None:
    """The file of model.manifest counts, and model.entry shows laid over."""
    (tmp_path / "m.yaml").write_text("provider: openai\nmodels: [{name: house-model}]\n", encoding="utf-8")
    model = {"name": "gpt-6-luna", "entry": {"max_output_tokens": 7}, "manifest": str(tmp_path / "m.yaml")}
    facts = list_models(None, job_of(model), TODAY)
    assert (facts["provider"], facts["job"]) == ("openai", "reviews")
    models = by_name(facts)
    assert [name for name, one in models.items() if one["is_jobs"]] == ["gpt-6-luna"]
    assert models["gpt-6-luna"]["max_output_tokens"] == 7
    assert "house-model" in models
    assert ">  gpt-6-luna" in " ".join(drawn(facts).split("\n")).replace("> gpt", ">  gpt")


def test_people_see_a_table_and_what_has_ended() -> None:
    """Retired models are named below, not in the table."""
    text = drawn(list_models("openai", None, TODAY))
    line = next(line for line in text.splitlines() if "gpt-4o-mini-2024-07-18" in line)
    assert line.split() == [
        *("gpt-4o-mini-2024-07-18", "gpt-4o-mini", "128k", "16.4k", "yes", "yes", "no"),
        *("0.15", "/", "0.6", "0.075", "/", "0.3", "2027-01-14"),
    ]
    assert "Retired: chatgpt-4o-latest" in text


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_keeps_the_prices(width: int) -> None:
    """Abilities shrink to letters, explained below."""
    text = drawn(list_models("openai", None, TODAY), width)
    assert "0.075 / 0.3" in text
    assert "B: batches" in text
    assert max(map(len, text.splitlines())) <= width


def test_a_very_narrow_terminal_cuts_no_name_and_no_price() -> None:
    """Names may take two lines; what there is no room for is left out, not cut."""
    facts = list_models("anthropic", None, TODAY)
    text = drawn(facts, 40)
    assert "…" not in text
    whole = "".join(line[:17].strip() for line in text.splitlines())
    shown = [model for model in facts["models"] if model["status"] != "retired"]
    assert all(model["name"] in whole for model in shown)
    assert all(len(line) <= 40 for line in text.splitlines())


def test_a_provider_that_is_not_listed_is_refused() -> None:
    """With those that are."""
    with pytest.raises(ConfigError, match=r"^gogle has no model manifest; there are: openai, azure_openai, anthropic"):
        list_models("gogle", None, TODAY)


def test_the_command_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """For programs."""
    models_to_screen(Screen(as_json=True), "anthropic", None)
    (line,) = capsys.readouterr().out.splitlines()
    assert orjson.loads(line)["provider"] == "anthropic"
