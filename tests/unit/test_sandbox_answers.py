"""Answers of the sandbox: valid for their schema, the same every time, and wrong only on purpose."""

from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sandbox.answers import answer_value, sentence
from pipelines.sandbox.draws import Draws, derive, unit
from pipelines.sandbox.spoil import break_json, spoil, wrong_value
from pipelines.sandbox.strict import anthropic_objection, is_schema, openai_objection

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "parent": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name", "children", "parent"],
            "additionalProperties": False,
        }
    },
}
LABEL = {
    "type": "object",
    "properties": {"label": {"enum": ["positive", "negative", "neutral"]}},
    "required": ["label"],
    "additionalProperties": False,
}

SCHEMAS = [
    pytest.param(LABEL, id="enum without type"),
    pytest.param({"const": {"a": [1, None]}}, id="const"),
    pytest.param({"type": "string"}, id="string"),
    pytest.param({"type": "string", "minLength": 40, "maxLength": 44}, id="string of bounded length"),
    pytest.param({"type": "string", "maxLength": 3}, id="short string"),
    pytest.param({"type": "string", "maxLength": 0}, id="empty string"),
    pytest.param({"type": "string", "minLength": 20.0, "maxLength": 21.0}, id="lengths as floats"),
    pytest.param({"type": "string", "format": "date-time"}, id="format"),
    pytest.param({"type": "integer", "minimum": 1, "maximum": 5}, id="integer in a range"),
    pytest.param({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 3}, id="integer between open ends"),
    pytest.param({"type": "integer", "minimum": 10, "maximum": 20, "multipleOf": 7}, id="multiple of seven"),
    pytest.param({"type": "integer", "maximum": -500}, id="integer below"),
    pytest.param({"type": "number", "minimum": 0, "maximum": 1}, id="number in a range"),
    pytest.param({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001}, id="number in a tiny range"),
    pytest.param({"type": "number", "minimum": 0, "maximum": 10, "multipleOf": 0.5}, id="number with a step"),
    pytest.param({"type": "boolean"}, id="boolean"),
    pytest.param({"type": "null"}, id="null"),
    pytest.param({"type": ["string", "null"]}, id="null union by type"),
    pytest.param({"anyOf": [{"type": "integer"}, {"type": "null"}]}, id="null union by anyOf"),
    pytest.param({"type": "array", "items": LABEL, "minItems": 2, "maxItems": 4}, id="array of objects"),
    pytest.param({"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 3}, id="set"),
    pytest.param(
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}, id="tuple"
    ),
    pytest.param({"type": "array", "maxItems": 0}, id="empty array"),
    pytest.param({"type": "object", "additionalProperties": {"type": "integer"}}, id="map"),
    pytest.param(
        {"type": "object", "required": ["a"], "properties": {"b": {"type": "integer"}}}, id="unlisted required"
    ),
    pytest.param({"properties": {"a": {"items": {"type": "integer"}}}}, id="types left out"),
    pytest.param({"allOf": [LABEL, {"properties": {"label": {"minLength": 1}}}]}, id="allOf"),
    pytest.param({"oneOf": [{"type": "integer"}, {"type": "string"}]}, id="oneOf"),
    pytest.param(TREE, id="recursive"),
    pytest.param({"$defs": {"a/b": {"type": "integer"}}, "$ref": "#/$defs/a~1b"}, id="escaped reference"),
    pytest.param({}, id="empty schema"),
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_an_answer_is_valid_for_its_schema_whatever_is_drawn(schema: dict[str, Any]) -> None:
    """Two hundred draws, each checked by an independent validator with formats on."""
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    for start in range(200):
        value = answer_value(schema, Draws(derive(start)))
        validator.validate(value)


def _schemas() -> st.SearchStrategy[dict[str, Any]]:
    leaf = st.one_of(
        st.builds(lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span}, *_small(2)),
        st.builds(lambda low, span: {"type": "integer", "minimum": low - 9, "maximum": low - 9 + span}, *_small(2)),
        st.builds(lambda low, span: {"type": "number", "minimum": low, "maximum": low + span}, *_small(2)),
        st.lists(st.one_of(st.text(), st.integers(-9, 9), st.none()), min_size=1).map(lambda values: {"enum": values}),
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}]),
    )
    return st.recursive(leaf, _containers, max_leaves=8)


def _small(count: int) -> list[st.SearchStrategy[int]]:
    return [st.integers(0, 20)] * count


def _containers(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.dictionaries(st.text(max_size=5), inner, max_size=4).map(
            lambda parts: {"type": "object", "properties": parts, "required": [*parts], "additionalProperties": False}
        ),
        st.builds(lambda item, low, span: {"type": "array", "items": item, "minItems": low, "maxItems": low + span},
                  inner, st.integers(0, 3), st.integers(0, 3)),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(schema=_schemas(), start=st.integers(0, 2**64 - 1))
def test_any_generated_schema_gets_a_valid_answer(schema: dict[str, Any], start: int) -> None:
    """Schemas nobody thought of are satisfied too, and the same draw gives the same answer."""
    value = answer_value(schema, Draws(start))
    jsonschema_rs.validate(schema, value)
    assert value == answer_value(schema, Draws(start))


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"$ref": "https://example.org/x"}, id="outside"),
        pytest.param({"$ref": "#/$defs/none"}, id="nowhere"),
        pytest.param({"$ref": "#"}, id="itself"),
        pytest.param({"type": "string", "minLength": 10**9}, id="huge"),
        pytest.param({"type": "number", "multipleOf": 1e-308, "minimum": 1e300}, id="overflowing"),
        pytest.param({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}, id="endless"),
    ],
)
def test_a_schema_that_nothing_satisfies_is_an_error(schema: dict[str, Any]) -> None:
    """The sandbox answers those with a 400, and does not run for ever."""
    with pytest.raises(ValueError):
        answer_value(schema, Draws(1))


def test_a_sentence_is_short_and_follows_from_its_draw() -> None:
    """A hundred draws, none longer than 60 characters, more than one text."""
    texts = [sentence(Draws(derive(start))) for start in range(100)]
    assert max(map(len, texts)) <= 60
    assert texts == [sentence(Draws(derive(start))) for start in range(100)]
    assert len(set(texts)) > 50


def test_draws_spread_over_their_range_and_depend_on_every_part() -> None:
    """The mean of many units is a half, and parts don't run into each other."""
    assert abs(sum(unit("x", number) for number in range(2000)) / 2000 - 0.5) < 0.03
    assert len({derive("ab", "c"), derive("a", "bc"), derive("abc"), derive(b"abc"), derive("c", "ab")}) == 5
    assert {Draws(derive(number)).between(2, 4) for number in range(50)} == {2, 3, 4}


def test_a_spoiled_answer_takes_four_forms_and_only_two_hold_the_answer() -> None:
    """Fence and prose carry valid JSON inside; the other two don't carry it at all."""
    value = {"label": "positive"}
    seen = set()
    for start in range(60):
        text = spoil(value, LABEL, Draws(derive(start)))
        if text.startswith("```json\n"):
            seen.add("fenced")
            assert orjson.loads(text.removeprefix("```json\n").removesuffix("\n```")) == value
        elif text.startswith("Here"):
            seen.add("prose")
            assert orjson.loads(text.splitlines()[1]) == value
        else:
            seen.add("wrong_value" if text.endswith("}") else "broken")
            assert not _is_valid(text, LABEL)
    assert seen == {"fenced", "prose", "wrong_value", "broken"}


@pytest.mark.parametrize("schema", [case for case in SCHEMAS if case.id not in ("empty schema", "types left out")])
def test_a_wrong_value_is_not_valid_for_its_schema(schema: dict[str, Any]) -> None:
    """What is meant to be refused by a validator is refused."""
    for start in range(20):
        value = wrong_value(answer_value(schema, Draws(derive(start))), schema)
        assert not jsonschema_rs.is_valid(schema, value)
    assert wrong_value("text", {}) is None


@pytest.mark.parametrize("text", ['{"a":{"b":["c"]}}', '"text"', "12", "true", "null", "[]", "{}"])
def test_broken_json_is_not_json(text: str) -> None:
    """Whatever the value was, no parser takes what is left of it."""
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(break_json(text))


@pytest.mark.parametrize(
    ("schema", "openai", "anthropic"),
    [
        pytest.param(LABEL, None, None, id="good for both"),
        pytest.param(TREE, None, None, id="references"),
        pytest.param({"type": "object", "properties": {}}, "additionalProperties", "additionalProperties", id="open"),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
            "Missing 'a'",
            None,
            id="optional property",
        ),
        pytest.param({**LABEL, "allOf": [LABEL]}, "allOf", None, id="allOf"),
        pytest.param({"type": "array", "items": {"type": "string"}}, "object", None, id="array at the root"),
        pytest.param({"type": "integer", "minimum": 1}, "object", "minimum", id="range"),
        pytest.param({"type": "array", "minItems": 2}, "object", "minItems", id="two items at least"),
        pytest.param("text", "object", "dictionary", id="no schema"),
    ],
)
def test_providers_object_to_what_they_can_not_enforce(schema: Any, openai: str | None, anthropic: str | None) -> None:
    """The rules of providers.md 2.2 and 4.3, with the part at fault named."""
    for objection, expected in ((openai_objection(schema), openai), (anthropic_objection(schema), anthropic)):
        assert (objection is None) == (expected is None)
        assert expected is None or expected in str(objection)


@pytest.mark.parametrize("schema", [{"type": "thing"}, {"properties": 3}, [], None, "x"])
def test_what_is_no_json_schema_is_seen(schema: Any) -> None:
    """A malformed schema must not reach the code that walks schemas."""
    assert not is_schema(schema)
    assert is_schema(LABEL)


def _is_valid(text: str, schema: dict[str, Any]) -> bool:
    try:
        return jsonschema_rs.is_valid(schema, orjson.loads(text))
    except ValueError:
        return False
