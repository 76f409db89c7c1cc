"""Where batches are: a batch counts as here exactly when its requests would be the same here."""

from typing import Any

import pytest

from transforms.providers import make_provider
from transforms.records.settings import ModelSettings
from transforms.rules.place import is_same_place

_AZURE = "azure.ai.openai"
_RESOURCE = "https://res.openai.azure.com"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        pytest.param(("openai", "https://a/v1"), ("openai", "https://a/v1"), True, id="equal"),
        pytest.param(("openai", "https://a/v1"), ("openai", "https://b/v1"), False, id="other host"),
        pytest.param(("openai", "https://a/v1"), ("openai", "https://a/v2"), False, id="other path"),
        pytest.param(("openai", "http://a:1/v1"), ("openai", "http://a:2/v1"), False, id="other port"),
        pytest.param(("openai", "https://a/v1"), ("openrouter", "https://a/v1"), False, id="other provider"),
        pytest.param((_AZURE, f"{_RESOURCE}/openai/v1"), (_AZURE, f"{_RESOURCE}/openai"), True, id="azure, other version"),
        pytest.param((_AZURE, f"{_RESOURCE}/openai"), (_AZURE, "https://RES.openai.azure.com/openai"), True, id="azure, case"),
        pytest.param((_AZURE, f"{_RESOURCE}/openai"), (_AZURE, "https://two.openai.azure.com/openai"), False, id="azure, other host"),
        pytest.param((_AZURE, f"{_RESOURCE}/openai"), ("openai", f"{_RESOURCE}/openai"), False, id="azure, not azure"),
        pytest.param((_AZURE, ""), (_AZURE, f"{_RESOURCE}/openai"), False, id="azure, no address"),
    ],
)  # fmt: skip
def test_places_are_compared_as_requests_are(one: tuple[str, str], other: tuple[str, str], is_same: bool) -> None:
    """The whole address; on Azure the host."""
    assert is_same_place(one, other) is is_same
    assert is_same_place(other, one) is is_same


_OPENAI: dict[str, Any] = {"provider": "openai", "name": "m"}
_ANTHROPIC: dict[str, Any] = {"provider": "anthropic", "name": "m", "params": {"max_output_tokens": 8}}
_ROUTER: dict[str, Any] = {"provider": "openrouter", "name": "m"}
_RES: dict[str, Any] = {"provider": "azure_openai", "name": "m", "deployment": "d", "base_url": _RESOURCE}


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        pytest.param(_OPENAI, {"base_url": "https://api.openai.com/v1/"}, id="openai, spelled out"),
        pytest.param(_OPENAI, {"base_url": "https://eu.api.openai.com/v1"}, id="openai, elsewhere"),
        pytest.param(_ANTHROPIC, {"base_url": "https://api.anthropic.com/v1"}, id="anthropic, spelled out"),
        pytest.param(_ANTHROPIC, {"base_url": "http://127.0.0.1:1"}, id="anthropic, elsewhere"),
        pytest.param(_ROUTER, {"base_url": "http://127.0.0.1:1/v1"}, id="openrouter, elsewhere"),
        pytest.param(_RES, {"api_version": "2024-10-21"}, id="azure, dated"),
        pytest.param(_RES, {"base_url": f"{_RESOURCE}/openai/v1"}, id="azure, whole address"),
        pytest.param(_RES, {"base_url": "https://two.openai.azure.com"}, id="azure, elsewhere"),
    ],
)
def test_what_changes_the_requests_changes_the_place(model: dict[str, Any], changes: dict[str, Any]) -> None:
    """A batch is found again if, and only if, the requests that it holds keep their ids."""
    first, second = (make_provider(ModelSettings(**settings), None) for settings in (model, model | changes))
    is_same = is_same_place((first.name, first.base_url), (second.name, second.base_url))
    assert is_same is (first.identity() == second.identity())
