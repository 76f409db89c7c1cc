"""JSON Schema into OpenAI's strict form, Anthropic's closed form and a grammar's form."""

import copy
from typing import Literal

import jsonschema_rs
import pytest
from anthropic import transform_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from transforms.records.errors import ConfigError
from transforms.rules.native_schema import closed_schema, grammar_schema, strict_schema

LABEL = {"enum": ["positive", "negative"]}


def obj(properties, required=(), **more):
    """Return an object schema."""
    return {"type": "object", "properties": properties, "required": list(required), **more}


class Tag(BaseModel):
    kind: Literal["tag"]
    name: str = Field(max_length=20)
    note: str | None = None


class Review(BaseModel):
    """A review."""

    score: int = Field(ge=1, le=5, description="Stars")
    tags: list[Tag] = []
    best: Tag | None = None


@pytest.mark.parametrize(
    ("member", "native"),
    [
        pytest.param({"type": "string"}, {"type": ["string", "null"]}, id="type"),
        pytest.param({"type": ["string", "null"]}, {"type": ["string", "null"]}, id="already-nullable"),
        pytest.param(LABEL, {"type": ["string", "null"], "enum": ["positive", "negative", None]}, id="enum"),
        pytest.param({"const": 1}, {"anyOf": [{"type": "integer", "const": 1}, {"type": "null"}]}, id="const"),
        pytest.param(
            {"oneOf": [{"type": "string"}, {"type": "integer"}]},
            {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            id="one-of",
        ),
        pytest.param(
            {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
            id="nullable-union",
        ),
    ],
)
def test_an_optional_member_becomes_required_and_nullable(member, native):
    """Strict mode has no optional members; a null union stands for them."""
    assert strict_schema(obj({"a": member})) == {
        "type": "object",
        "properties": {"a": native},
        "required": ["a"],
        "additionalProperties": False,
    }


def test_what_strict_mode_lacks_moves_into_the_description():
    """A maximum length is no keyword of strict mode, but the model can still read it."""
    native = strict_schema(
        obj({"a": {"type": "string", "maxLength": 9, "description": "Short", "pattern": "^x"}}, ["a"])
    )
    assert native["properties"]["a"] == {"type": "string", "pattern": "^x", "description": "Short [maxLength: 9]"}


def test_a_required_enum_without_a_type_gets_one():
    """Strict mode wants a type beside every enum."""
    native = strict_schema(obj({"label": LABEL, "n": {"enum": [1, None]}}, ["label", "n"]))
    assert native["properties"]["label"] == {"type": "string", "enum": ["positive", "negative"]}
    assert native["properties"]["n"] == {"type": ["integer", "null"], "enum": [1, None]}


def test_references_stand_alone_and_a_root_reference_is_written_out():
    """OpenAI takes neither words beside a reference nor a reference as the root."""
    schema = {
        "$ref": "#/$defs/Node",
        "$defs": {
            "Node": obj({"next": {"$ref": "#/$defs/Node", "description": "the next"}, "v": {"type": "string"}}, ["v"])
        },
    }
    native = strict_schema(schema)
    assert native["type"] == "object"
    assert native["properties"]["next"] == {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}
    assert native["$defs"]["Node"]["required"] == ["next", "v"]


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "string"}, id="root-is-no-object"),
        pytest.param({"anyOf": [obj({}), obj({})]}, id="root-is-a-union"),
        pytest.param({"type": ["object", "null"], "properties": {}}, id="root-may-be-null"),
        pytest.param({"type": "object"}, id="free-object"),
        pytest.param(obj({"a": LABEL}, additionalProperties=True), id="free-keys"),
        pytest.param(obj({"a": LABEL}, additionalProperties={"type": "string"}), id="typed-free-keys"),
        pytest.param(obj({"a": {}}), id="anything"),
        pytest.param(obj({"a": True}), id="true"),
        pytest.param(obj({"a": {"type": "array"}}), id="array-of-anything"),
        pytest.param(obj({"a": LABEL}, ["b"]), id="undescribed-required"),
        pytest.param(obj({"a": LABEL}, allOf=[obj({}), obj({})]), id="all-of"),
        pytest.param(obj({"a": LABEL}, **{"not": {"required": ["a"]}}), id="not"),
        pytest.param(obj({"a": LABEL}, **{"if": {}, "then": {}}), id="if"),
        pytest.param(obj({"a": LABEL}, dependentRequired={"a": ["b"]}), id="dependent"),
        pytest.param(obj({"a": LABEL}, patternProperties={"^x": {}}), id="pattern-properties"),
        pytest.param(obj({"a": {"$ref": "https://example.com/s.json"}}), id="remote-reference"),
        pytest.param(obj({"a": {"$ref": "#/$defs/Nowhere"}}), id="dangling-reference"),
        pytest.param(obj({"a": {"anyOf": [LABEL], "properties": {}}}), id="properties-beside-union"),
    ],
)
def test_what_strict_mode_cannot_say_is_not_made_strict(schema):
    """The caller then sends the original schema with strict false."""
    assert strict_schema(schema) is None


def nested(levels):
    """Return objects nested so many levels deep."""
    schema = {"type": "string"}
    for _ in range(levels):
        schema = obj({"a": schema}, ["a"])
    return schema


def words(number, length):
    """Return an enum of so many values of that length."""
    return obj({"a": {"enum": [f"{i:0{length}d}" for i in range(number)]}}, ["a"])


@pytest.mark.parametrize(
    ("fits", "too_large"),
    [
        pytest.param(nested(10), nested(11), id="depth"),
        pytest.param(words(1000, 4), words(1001, 4), id="enum-values"),
        pytest.param(words(300, 50), words(300, 51), id="long-enum"),
        pytest.param(words(250, 400), words(250, 480), id="characters"),
        pytest.param(
            obj({f"p{i}": LABEL for i in range(500)}, [f"p{i}" for i in range(500)]),
            obj({f"p{i}": LABEL for i in range(501)}, [f"p{i}" for i in range(501)]),
            id="enum-values-in-all",
        ),
        pytest.param(
            obj({f"p{i}": {"type": "string"} for i in range(5000)}),
            obj({f"p{i}": {"type": "string"} for i in range(5001)}),
            id="properties",
        ),
    ],
)
def test_strict_limits_hold_on_both_sides(fits, too_large):
    """The largest schema of each kind is strict, the next larger one is not."""
    assert strict_schema(fits) is not None
    assert strict_schema(too_large) is None


def test_closed_schema_keeps_optional_members_and_words_for_the_rest():
    """Anthropic takes optional members, no ranges and only minItems 0 or 1."""
    schema = obj(
        {
            "a": {"type": "integer", "minimum": 1, "title": "A"},
            "b": {"type": "array", "items": {"type": "string", "format": "uri"}, "minItems": 1},
            "c": {"type": "array", "items": {"type": "string", "format": "color"}, "minItems": 2},
        },
        ["b"],
    )
    assert closed_schema(schema) == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "title": "A", "description": "[minimum: 1]"},
            "b": {"type": "array", "items": {"type": "string", "format": "uri"}, "minItems": 1},
            "c": {
                "type": "array",
                "items": {"type": "string", "description": "[format: color]"},
                "description": "[minItems: 2]",
            },
        },
        "required": ["b"],
        "additionalProperties": False,
    }


def shape(schema):
    """Return a native schema without words, for comparison."""
    if isinstance(schema, list):
        return [shape(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    typed = {k: shape(v) for k, v in schema.items() if k not in {"description", "title"} or isinstance(v, dict)}
    return {k: v for k, v in typed.items() if k != "type" or ("enum" not in typed and "const" not in typed)}


def test_the_official_sdk_closes_a_pydantic_schema_in_the_same_way():
    """Words aside, the closed form equals what Anthropic's own SDK sends."""
    ours, theirs = closed_schema(Review.model_json_schema()), transform_schema(Review.model_json_schema())
    assert shape(ours) == shape(theirs)


@pytest.mark.parametrize(
    ("schema", "where", "what"),
    [
        pytest.param(
            {"$ref": "#/$defs/N", "$defs": {"N": obj({"n": {"$ref": "#/$defs/N"}})}},
            "",
            "contains itself",
            id="recursion",
        ),
        pytest.param(obj({"n": {"$ref": "#"}}), "", "contains itself", id="root-recursion"),
        pytest.param(obj({"m": {"type": "object"}}), ".properties.m", "free keys", id="free-object"),
        pytest.param(obj({"m": {}}), ".properties.m", "any type", id="anything"),
        pytest.param(obj({f"p{i}": LABEL for i in range(25)}), "", "25 optional", id="optional"),
        pytest.param(
            obj({f"p{i}": {"type": ["string", "null"]} for i in range(17)}, [f"p{i}" for i in range(17)]),
            "",
            "17 properties of more than one type",
            id="unions",
        ),
    ],
)
def test_what_anthropic_cannot_compile_is_refused_before_anything_is_sent(schema, where, what):
    """The error names the place in the job file and what is wrong there."""
    with pytest.raises(ConfigError, match=what) as caught:
        closed_schema(schema)
    assert str(caught.value).startswith(f"answer.schema{where}: ")


def test_a_grammar_gets_the_schema_with_closed_objects():
    """Lengths and optional members stay; objects that say nothing about more keys are closed."""
    schema = obj({"a": {"type": "string", "maxLength": 5}, "b": {"type": "array", "items": obj({"properties": LABEL})}})
    assert grammar_schema(schema) == obj(
        {
            "a": {"type": "string", "maxLength": 5},
            "b": {"type": "array", "items": obj({"properties": LABEL}, additionalProperties=False)},
        },
        additionalProperties=False,
    )
    opened = obj({"a": LABEL}, additionalProperties=True)
    assert grammar_schema(opened) == opened


leaves = st.one_of(
    st.sampled_from(
        [{"type": "string"}, {"type": "integer", "minimum": 0}, LABEL, {"const": "x"}, {"type": "null"}, {}]
    ),
    st.just({"type": "string", "maxLength": 3, "description": "d"}),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda members, needed: obj(members, [name for name in members if name in needed]),
            st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
            st.sets(st.sampled_from("abcd")),
        ),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


def is_closed(node):
    """Tell whether every object in a native schema is closed."""
    if isinstance(node, list):
        return all(map(is_closed, node))
    if not isinstance(node, dict):
        return True
    return ("properties" not in node or node.get("additionalProperties") is False) and all(
        map(is_closed, node.values())
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas)
def test_conversion_is_pure_and_gives_valid_closed_schemas(schema):
    """No conversion changes its input; what comes out is JSON Schema, closed, and in strict form all required."""
    before = copy.deepcopy(schema)
    strict = strict_schema(schema)
    try:
        closed = closed_schema(schema)
    except ConfigError:
        closed = None
    grammar_schema(schema)
    assert schema == before
    for native in (strict, closed):
        if native is not None:
            assert is_closed(native)
            jsonschema_rs.validator_for(native)
    if strict is not None:
        assert strict["required"] == list(strict["properties"])
