"""Under which names a model is looked up, and which names are near a wrong one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.rules.model_names import name_forms, near_names


@pytest.mark.parametrize(
    ("provider", "name", "expected"),
    [
        pytest.param("openai", "gpt-x", ["gpt-x"], id="plain"),
        pytest.param("openai", "gpt-x-2026-01-31", ["gpt-x-2026-01-31", "gpt-x"], id="dated"),
        pytest.param("anthropic", "claude-x-20260131", ["claude-x-20260131", "claude-x"], id="dated-anthropic"),
        pytest.param("openai", "ft:gpt-x:org::id", ["ft:gpt-x:org::id", "gpt-x"], id="tuned"),
        pytest.param(
            "openai",
            "ft:gpt-x-2026-01-31:org:suffix:id",
            ["ft:gpt-x-2026-01-31:org:suffix:id", "gpt-x-2026-01-31", "gpt-x"],
            id="tuned-dated",
        ),
        pytest.param("azure_openai", "gpt-x.ft-0a1b", ["gpt-x.ft-0a1b", "gpt-x"], id="tuned-azure"),
        pytest.param("azure_openai", "gpt-35-turbo", ["gpt-35-turbo", "gpt-3.5-turbo"], id="azure-35"),
        pytest.param("openrouter", "a/b:free", ["a/b:free", "a/b"], id="variant"),
        pytest.param("anthropic", "a/b:free", ["a/b:free"], id="no-variant"),
    ],
)
def test_names_to_look_a_model_up_by(provider: str, name: str, expected: list[str]) -> None:
    """The name itself comes first."""
    assert [form.text for form in name_forms(provider, name)] == expected


@given(st.sampled_from(["openai", "azure_openai", "anthropic", "openrouter"]), st.text(max_size=40))
def test_any_text_is_a_name_to_look_up(provider: str, name: str) -> None:
    """Whatever a job writes is looked up as it is, and never raises."""
    assert name_forms(provider, name)[0].text == name
    assert near_names(name, ["gpt-6-luna"]) in ([], ["gpt-6-luna"])


def test_near_names_are_the_likest_first_whatever_their_case() -> None:
    """Three at most."""
    known = ["gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "o3", "gpt-4o-mini-2024-07-18"]
    assert near_names("GPT-4o-mni", known) == ["gpt-4o-mini"]
    assert len(near_names("model-x", ["model-a", "model-b", "model-c", "model-d"])) == 3
    assert near_names("zebra", known) == []
