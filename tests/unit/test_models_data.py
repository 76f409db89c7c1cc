"""The built-in model manifest: each file as it is shipped."""

from datetime import date
from pathlib import Path

import pytest
import yaml

import pipelines.model_catalog as catalog
from transforms.records.model_entry import ModelEntry
from transforms.rules.price import PriceTable

REVIEWED = date(2026, 11, 21)
PARAMS = frozenset(
    [
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "logprobs",
        "top_logprobs",
        "max_tokens",
        "reasoning_effort",
    ]
)
PRICES = PriceTable()


def every_entry() -> list[ModelEntry]:
    """Return all built-in entries."""
    return [entry for provider in catalog.LISTED_PROVIDERS for entry in catalog.listed_models(provider)]


@pytest.fixture(params=catalog.LISTED_PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    """Give each provider with a manifest."""
    return str(request.param)


def test_a_file_is_sorted_and_says_how_it_was_reviewed(provider: str) -> None:
    """Entries stand by name; the header names the day and what could not be verified."""
    text = (Path(catalog.__file__).parent / "models" / f"{provider}.yaml").read_text(encoding="utf-8")
    names = [model["name"] for model in yaml.safe_load(text)["models"]]
    assert names == sorted(names)
    header = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert "Reviewed 2026-11-21" in header
    assert "null" in header
    assert max(map(len, text.splitlines())) <= 120


def test_no_name_means_two_models(provider: str) -> None:
    """Names and aliases of a provider are unique together."""
    names = [name for entry in catalog.listed_models(provider) for name in entry.names]
    assert len(names) >= 30
    assert len(names) == len(set(names))


def test_both_yaml_loaders_read_the_same(provider: str) -> None:
    """Where PyYAML was built without libyaml, the manifest is the same."""
    data = (Path(catalog.__file__).parent / "models" / f"{provider}.yaml").read_bytes()
    assert yaml.load(data, yaml.CSafeLoader) == yaml.load(data, yaml.SafeLoader)


@pytest.mark.parametrize("entry", every_entry(), ids=lambda entry: f"{entry.provider}:{entry.name}")
def test_an_entry_is_sane(entry: ModelEntry) -> None:
    """Reviewed, with a page behind it; dates, limits and parameters fit each other; priced, or marked unpriced."""
    assert entry.reviewed == REVIEWED
    assert str(entry.source).startswith("https://")
    days = [day for day in (entry.released, entry.deprecated) if day is not None]
    assert all(date(2022, 1, 1) <= day <= REVIEWED for day in days)
    assert entry.retired is None or date(2023, 1, 1) <= entry.retired <= date(2029, 1, 1)
    assert entry.dates_as_of is None or entry.dates_as_of <= REVIEWED
    if entry.context_tokens and entry.max_output_tokens:
        assert entry.max_output_tokens <= entry.context_tokens
    assert {*entry.accepts, *entry.refuses, *entry.refuses_while_reasoning} <= PARAMS
    assert not set(entry.accepts) & {*entry.refuses, *entry.refuses_while_reasoning}
    assert entry.default_effort is None or entry.efforts is None or entry.default_effort in entry.efforts
    if entry.reasoning is False:
        assert entry.efforts is None
        assert not entry.refuses_while_reasoning
    assert entry.priced == (PRICES.rates(entry.provider, entry.name) is not None)


def test_successors_are_listed_and_not_retired() -> None:
    """Nobody is sent from one retired model to the next."""
    for entry in every_entry():
        if entry.successor is not None and entry.provider != "azure_openai":
            successor = catalog.built_in(entry.provider).find(entry.provider, entry.successor)
            assert successor is not None, entry.name
            assert successor.status(REVIEWED) != "retired", entry.name


def test_the_file_in_use_is_read_once() -> None:
    """The manifest is on the path of every run."""
    assert catalog.built_in("openai") is catalog.built_in("openai")
