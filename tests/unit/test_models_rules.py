"""What the gate finds between a job's model settings and a manifest entry: a table of cases for each finding."""

from datetime import date
from typing import Any

import pytest

from transforms.records.model_entry import ModelEntry, ModelFinding
from transforms.records.settings import ModelSettings
from transforms.rules.model_check import ModelQuestion, check_model_entry

TODAY = date(2026, 11, 21)
PLAIN: dict[str, Any] = {
    "provider": "openai",
    "name": "m-2026-01-01",
    "aliases": ["m"],
    "context_tokens": 1000,
    "max_output_tokens": 400,
    "reviewed": "2026-11-21",
}


def find(entry: dict[str, Any] | None, model: dict[str, Any] | None = None, **asked: Any) -> list[ModelFinding]:
    """Check a model entry (changes of PLAIN; None: unlisted) against model settings."""
    settings = ModelSettings.model_validate({"provider": "openai", "name": "m"} | (model or {}))
    known = None if entry is None else ModelEntry.model_validate(PLAIN | {"provider": settings.provider} | entry)
    return check_model_entry(known, ModelQuestion(settings, **({"mode": "per_request", "today": TODAY} | asked)))


def short(findings: list[ModelFinding]) -> list[tuple[str, str, str]]:
    """Return level, code and key of each."""
    return [(finding.level, finding.code, finding.key) for finding in findings]


def test_a_model_that_can_do_it_has_no_findings() -> None:
    """Everything within the limits, nothing refused, nothing ends."""
    model = {"params": {"temperature": 0, "max_output_tokens": 400}}
    asked = {"mode": "auto", "has_schema": True, "max_output_tokens": 400, "longest_request_tokens": 600}
    assert find({"batch": True, "structured_output": True}, model, **asked) == []


def test_what_is_not_known_refuses_nothing() -> None:
    """An entry of nulls is as good as one that allows everything."""
    bare = ModelEntry(provider="openai", name="m")
    params = {"temperature": 0, "top_p": 0.5, "seed": 1, "stop": ["."], "reasoning_effort": "max"}
    settings = ModelSettings.model_validate({"provider": "openai", "name": "m", "params": params})
    question = ModelQuestion(
        settings,
        "provider_batch_api",
        TODAY,
        (),
        has_schema=True,
        max_output_tokens=10**9,
        longest_request_tokens=10**9,
    )
    assert check_model_entry(bare, question) == []


@pytest.mark.parametrize(
    ("model", "near", "expected", "words"),
    [
        pytest.param(
            {}, ["mm", "mn", "mo"], "error", "did you mean mm, mn or mo? If the name is right, set", id="near"
        ),
        pytest.param({}, [], "error", "rowbeam models --provider openai lists those that are; if", id="none-near"),
        pytest.param({"allow_unlisted": True}, ["mm"], "warning", "did you mean mm?", id="allowed"),
    ],
)
def test_an_unknown_model(model: dict[str, Any], near: list[str], expected: str, words: str) -> None:
    """The likely slip is named; allow_unlisted makes it a warning."""
    (found,) = find(None, model, near=near)
    assert (found.level, found.code, found.key) == (expected, "unknown_model", "model.name")
    assert words in found.says


@pytest.mark.parametrize(
    ("name", "allow", "expected"),
    [
        pytest.param("labels", False, ("error", "no_model_declared"), id="deployment"),
        pytest.param("labels", True, ("warning", "no_model_declared"), id="allowed"),
        pytest.param("gpt-9", False, ("error", "unknown_model"), id="unknown"),
    ],
)
def test_an_azure_deployment_needs_a_declared_model(name: str, allow: bool, expected: tuple[str, str]) -> None:
    """The deployment's own name says nothing of the model behind it."""
    model = {"provider": "azure_openai", "name": name, "deployment": "labels", "allow_unlisted": allow}
    (found,) = find(None, model)
    assert (found.level, found.code) == expected


@pytest.mark.parametrize(
    ("entry", "expected", "words"),
    [
        pytest.param({"retired": "2026-11-21"}, ("error", "retired"), "retired on 2026-11-21", id="today"),
        pytest.param({"retired": "2025-01-01", "successor": "n"}, ("error", "retired"), "n is what", id="long-ago"),
        pytest.param({"retired": "2026-11-22"}, ("warning", "deprecated"), "2026-11-22 (tomorrow)", id="tomorrow"),
        pytest.param(
            {"retired": "2027-01-14", "successor": "n"}, ("warning", "deprecated"), "(in 54 days); n is", id="soon"
        ),
        pytest.param({"deprecated": "2026-10-14"}, ("warning", "deprecated"), "is deprecated", id="no-date"),
        pytest.param(
            {"retired": "2026-10-01", "dates_as_of": "2026-07-07"},
            ("warning", "overdue"),
            "as announced by 2026-07-07; it may be gone",
            id="announced-only",
        ),
        pytest.param({"retired": "2026-10-01", "reviewed": None}, ("error", "retired"), "was retired", id="own-entry"),
    ],
)
def test_the_end_of_a_model(entry: dict[str, Any], expected: tuple[str, str], words: str) -> None:
    """Gone is an error, an end ahead a warning with its day; an announcement that has passed proves nothing."""
    (found,) = find(entry)
    assert (found.level, found.code) == expected
    assert words in found.says


def test_a_retirement_after_the_review_warns_once_it_has_come() -> None:
    """A manifest that got old must not stop a nightly job whose model was given more time."""
    (found,) = find({"retired": "2027-01-14"}, today=date(2027, 2, 1))
    assert (found.level, found.code) == ("warning", "overdue")


SAMPLING = ["temperature", "top_p"]


@pytest.mark.parametrize(
    ("entry", "model", "expected"),
    [
        pytest.param({"refuses": SAMPLING}, {"params": {"temperature": 0}}, [("error", "temperature")], id="reasoning"),
        pytest.param({"refuses": SAMPLING}, {"params": {"temperature": 1, "top_p": 1}}, [], id="its-defaults"),
        pytest.param({"refuses": SAMPLING}, {"params": {}}, [], id="not-given"),
        pytest.param({"refuses": ["stop"]}, {"params": {"stop": ["."]}}, [("error", "stop")], id="stop"),
        pytest.param(
            {"refuses": ["max_tokens"]},
            {"params": {"extra": {"max_tokens": 9}}},
            [("error", "extra.max_tokens")],
            id="extra",
        ),
        pytest.param({"refuses": SAMPLING, "accepts": ["top_p"]}, {"params": {"top_p": 0.5}}, [], id="accepts-wins"),
        pytest.param(
            {"refuses": ["reasoning_effort"], "reasoning": False},
            {"params": {"reasoning_effort": "low"}},
            [("error", "reasoning_effort")],
            id="effort-without-reasoning",
        ),
        pytest.param(
            {"refuses": SAMPLING},
            {"params": {"temperature": 0}, "allow_unlisted": True},
            [("warning", "temperature")],
            id="allowed",
        ),
        pytest.param(
            {"refuses": SAMPLING},
            {"provider": "openrouter", "params": {"temperature": 0}},
            [("warning", "temperature")],
            id="openrouter",
        ),
        pytest.param(
            {"refuses_while_reasoning": SAMPLING, "default_effort": "medium"},
            {"params": {"temperature": 0}},
            [("error", "temperature")],
            id="reasons-by-default",
        ),
        pytest.param(
            {"refuses_while_reasoning": SAMPLING, "default_effort": "none"},
            {"params": {"temperature": 0}},
            [],
            id="reasons-when-asked",
        ),
        pytest.param(
            {"refuses_while_reasoning": SAMPLING, "default_effort": "medium"},
            {"params": {"temperature": 0, "reasoning_effort": "none"}},
            [],
            id="told-not-to",
        ),
        pytest.param(
            {"refuses_while_reasoning": SAMPLING, "default_effort": "none"},
            {"params": {"top_p": 0.1, "extra": {"reasoning": {"effort": "high"}}}},
            [("error", "top_p")],
            id="told-in-extra",
        ),
        pytest.param(
            {"refuses_while_reasoning": SAMPLING},
            {"params": {"temperature": 0}},
            [("warning", "temperature")],
            id="default-unknown",
        ),
    ],
)
def test_refused_parameters(entry: dict[str, Any], model: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """Each is named by its key, at the level that fits how certain the refusal is."""
    findings = find(entry, model)
    assert short(findings) == [(level, "refused_param", f"model.params.{key}") for level, key in expected]


@pytest.mark.parametrize("entry", [{"accepts": ["temperature"]}, None], ids=["listed", "unlisted"])
def test_anthropics_newest_version_takes_no_sampling(entry: dict[str, Any] | None) -> None:
    """Whatever the model takes, and even at the default (providers.md 0.1); the older version leaves it to the model."""
    params = {"temperature": 1, "extra": {"top_k": 5}}
    model = {"provider": "anthropic", "params": params, "allow_unlisted": entry is None}
    level = "error" if entry is not None else "warning"
    keys = [finding.key for finding in find(entry, model) if finding.code == "refused_param"]
    assert keys == ["model.params.temperature", "model.params.extra.top_k"]
    assert {finding.level for finding in find(entry, model)} == {level}
    older = find(entry, model | {"api_version": "2023-06-01"})
    assert [finding.code for finding in older if finding.code == "refused_param"] == []


@pytest.mark.parametrize(
    ("effort", "model", "expected"),
    [
        pytest.param("low", {}, [], id="known"),
        pytest.param("minimal", {}, [("error", "effort", "model.params.reasoning_effort")], id="unknown"),
        pytest.param(
            "minimal", {"allow_unlisted": True}, [("warning", "effort", "model.params.reasoning_effort")], id="allowed"
        ),
    ],
)
def test_efforts(effort: str, model: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    """An effort the model has not is refused by its provider."""
    entry = {"efforts": ["low", "high"], "reasoning": True}
    assert short(find(entry, model | {"params": {"reasoning_effort": effort}})) == expected


def test_an_api_that_does_not_serve_the_model() -> None:
    """Pro models are served by Responses alone."""
    (found,) = find({"apis": ["responses"]})
    assert (found.level, found.key, found.says) == (
        "error",
        "model.api",
        "m-2026-01-01 is not served by chat_completions; set it to responses",
    )
    assert find({"apis": ["responses"]}, {"api": "responses"}) == []


@pytest.mark.parametrize(
    ("asked", "entry", "expected"),
    [
        pytest.param(400, {}, [], id="at-the-limit"),
        pytest.param(401, {}, ["error"], id="above"),
        pytest.param(401, {"provider": "openrouter"}, ["warning"], id="openrouter"),
        pytest.param(1000, {"max_output_tokens": None}, ["error"], id="no-room-for-a-prompt"),
        pytest.param(999, {"max_output_tokens": None}, [], id="some-room"),
        pytest.param(None, {}, [], id="no-limit-set"),
    ],
)
def test_output_limits(asked: int | None, entry: dict[str, Any], expected: list[str]) -> None:
    """Both sides of the limit."""
    findings = find(entry, max_output_tokens=asked)
    assert [finding.level for finding in findings] == expected
    assert all(finding.key == "model.params.max_output_tokens" for finding in findings)


@pytest.mark.parametrize(
    ("longest", "room", "expected"),
    [
        pytest.param(600, 400, [], id="fits"),
        pytest.param(601, 400, ["context"], id="with-its-answer"),
        pytest.param(1001, None, ["context"], id="alone"),
        pytest.param(None, 400, [], id="no-estimate"),
    ],
)
def test_context_overflow_is_a_warning(longest: int | None, room: int | None, expected: list[str]) -> None:
    """One long row keeps no job from running (P7)."""
    findings = find({}, longest_request_tokens=longest, max_output_tokens=room)
    assert [finding.code for finding in findings] == expected
    assert all(finding.level == "warning" for finding in findings)


@pytest.mark.parametrize(
    ("batch", "mode", "expected"),
    [
        pytest.param(False, "provider_batch_api", ["error"], id="only-batches"),
        pytest.param(False, "auto", ["warning"], id="auto"),
        pytest.param(False, "per_request", [], id="real-time"),
        pytest.param(True, "provider_batch_api", [], id="eligible"),
        pytest.param(None, "provider_batch_api", [], id="not-known"),
    ],
)
def test_models_that_batches_do_not_take(batch: bool | None, mode: str, expected: list[str]) -> None:
    """Refused where nothing else may be used, said where it costs twice as much."""
    findings = find({"batch": batch}, mode=mode)
    assert [finding.level for finding in findings] == expected
    assert all(finding.key == "batching.mode" for finding in findings)


def test_a_schema_on_a_model_without_structured_output() -> None:
    """Answers are checked here all the same."""
    assert short(find({"structured_output": False}, has_schema=True)) == [
        ("warning", "structured_output", "answer.schema")
    ]
    assert find({"structured_output": False}) == []


def test_errors_come_first() -> None:
    """The line that stops the job is not below one that doesn't."""
    entry = {"retired": "2026-12-01", "structured_output": False}
    levels = [finding.level for finding in find(entry, has_schema=True, max_output_tokens=500)]
    assert levels == ["error", "warning", "warning"]
