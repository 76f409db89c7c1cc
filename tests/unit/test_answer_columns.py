"""The columns an answer adds (rules/answer_columns.py, answer_type.py)."""

from dataclasses import replace
from decimal import Decimal

import pytest

from transforms.records.answer import RequestResult
from transforms.records.errors import AnswerError, ConfigError
from transforms.records.failure import FailureKind, Stage
from transforms.records.usage import Usage
from transforms.rules.answer_columns import USAGE_TYPE, AnswerColumns
from transforms.rules.answer_type import JSON, AnswerType, fit, json_type
from transforms.rules.prompt import PromptTemplate

TEXT, WHOLE, NUMBER, TRUTH = (AnswerType(kind) for kind in ("string", "integer", "number", "boolean"))
TEMPLATE = PromptTemplate(None, "{{ row.text }}", {"labels": ["a"]}, {"labels": "l.yaml"}, template_source="t.j2")
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["a", "b"]}, "score": {"type": "number"}},
    "required": ["label"],
}
RESULT = RequestResult(
    request_id="r" * 64,
    value_json='{"label":"a"}',
    kind=FailureKind.OK,
    stage=None,
    reason=None,
    attempts=1,
    call_id="c",
    run_id="run",
    reused=False,
    response_model="m-2024",
    usage=Usage(10, 2, None, None, None),
    cost_usd=Decimal("0.5"),
    repaired=False,
)
FAILED = replace(RESULT, value_json=None, kind=FailureKind.REFUSAL, stage=Stage.CALL, reason="it would not")


def test_an_enriched_row_has_exactly_the_columns_of_the_design():
    """Names, order and values, with the members flattened."""
    columns = AnswerColumns("s", SCHEMA, TEMPLATE, flatten=True)
    values = columns.values(RESULT, "v" * 64)
    assert tuple(values) == columns.names()
    assert values == {
        "s": {"label": "a", "score": None},
        "s_label": "a",
        "s_score": None,
        "s_model": "m-2024",
        "s_usage": {
            "input_tokens": 10,
            "output_tokens": 2,
            "cache_read_input_tokens": None,
            "cache_write_input_tokens": None,
            "reasoning_output_tokens": None,
            "cost_usd": Decimal("0.5"),
        },
        "s_template_hash": TEMPLATE.template_sha256,
        "s_variables_hash": "v" * 64,
        "s_template_source": "t.j2",
        "s_lookup_hash": TEMPLATE.lookup_sha256,
        "s_lookup_source": "labels=l.yaml",
        "s_request_id": "r" * 64,
    }


def test_types_go_with_names():
    """Storage gets one type per column; the usage column is a struct with money in it."""
    columns = AnswerColumns("s", SCHEMA, TEMPLATE, flatten=True, keep=True)
    types = dict(columns.types())
    assert tuple(types) == columns.names()
    assert types["s"] == AnswerType("object", (("label", TEXT), ("score", NUMBER)))
    assert (types["s_label"], types["s_score"], types["s_error"]) == (TEXT, NUMBER, TEXT)
    assert types["s_usage"] is USAGE_TYPE
    assert dict(USAGE_TYPE.fields)["cost_usd"] == AnswerType("decimal")
    assert set(values := columns.values(RESULT, "v")["s_usage"]) == {name for name, _ in USAGE_TYPE.fields}, values


def test_a_text_answer_is_the_text():
    """Without a schema the column holds the string itself, and there is nothing to flatten."""
    columns = AnswerColumns("s", None, TEMPLATE, flatten=True)
    assert columns.values(replace(RESULT, value_json='"hi"'), "v")["s"] == "hi"
    assert columns.names()[:2] == ("s", "s_model")


def test_a_kept_failure_has_a_null_answer_and_its_error():
    """What the failed call cost stays; the error says kind and reason."""
    values = AnswerColumns("s", SCHEMA, TEMPLATE, flatten=True, keep=True).values(FAILED, "v")
    assert (values["s"], values["s_label"]) == (None, None)
    assert values["s_error"] == "refusal: it would not"
    assert values["s_usage"]["cost_usd"] == Decimal("0.5")


def test_a_kept_success_has_no_error():
    """The error column is there and null."""
    assert (
        AnswerColumns("s", None, TEMPLATE, keep=True).values(replace(RESULT, value_json='"x"'), "v")["s_error"] is None
    )
    assert "s_error" not in AnswerColumns("s", None, TEMPLATE).names()


def test_a_kept_row_that_never_became_a_request_has_all_columns():
    """A row that could not be rendered: null but for the error and the template's facts."""
    columns = AnswerColumns("s", SCHEMA, TEMPLATE, keep=True)
    values = columns.failed(FailureKind.MISSING_COLUMN, "no column x")
    assert tuple(values) == columns.names()
    assert {name for name, value in values.items() if value is not None} == {
        "s_error",
        "s_template_hash",
        "s_template_source",
        "s_lookup_hash",
        "s_lookup_source",
    }
    assert values["s_error"] == "missing_column: no column x"


def test_an_input_column_of_the_same_name_is_refused():
    """The sentence names the column and the cure."""
    columns = AnswerColumns("s", SCHEMA, TEMPLATE)
    columns.check(["id", "text", "s_label"])
    with pytest.raises(ConfigError, match=r"already has a column 's_model'.*choose another answer\.field than 's'"):
        columns.check(["id", "s_model"])


def test_a_member_named_like_our_own_column_is_refused_when_flattened():
    """`model` flattened would be a second `s_model`; as a struct member it is fine."""
    schema = {"type": "object", "properties": {"model": {"type": "string"}}}
    AnswerColumns("s", schema, TEMPLATE)
    with pytest.raises(ConfigError, match=r"member 'model' would give a second column 's_model'"):
        AnswerColumns("s", schema, TEMPLATE, flatten=True)


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        pytest.param(None, TEXT, id="no schema"),
        pytest.param({"type": "boolean"}, TRUTH, id="scalar"),
        pytest.param({"type": ["integer", "null"]}, WHOLE, id="nullable"),
        pytest.param({"type": ["integer", "number"]}, NUMBER, id="integer or number"),
        pytest.param({"anyOf": [{"type": "number"}, {"type": "null"}]}, NUMBER, id="optional"),
        pytest.param({"allOf": [{"type": "string"}]}, TEXT, id="allOf of one"),
        pytest.param({"enum": ["a", "b", None]}, TEXT, id="enum of texts"),
        pytest.param({"enum": [1, 2]}, WHOLE, id="enum of integers"),
        pytest.param({"enum": [1, 2.5]}, NUMBER, id="enum of numbers"),
        pytest.param({"const": True}, TRUTH, id="const"),
        pytest.param({"enum": ["a", 1]}, JSON, id="mixed enum"),
        pytest.param({"enum": [{"a": 1}]}, JSON, id="enum of objects"),
        pytest.param({"type": "array", "items": {"type": "string"}}, AnswerType("array", item=TEXT), id="list"),
        pytest.param({"type": "array"}, JSON, id="list of anything"),
        pytest.param({"type": "array", "prefixItems": [{"type": "string"}]}, JSON, id="tuple"),
        pytest.param({"type": "object"}, JSON, id="free object"),
        pytest.param({"type": "object", "properties": {}}, JSON, id="object without members"),
        pytest.param({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}, JSON, id="map"),
        pytest.param({"type": "object", "properties": {"a": {}}, "additionalProperties": False},
                     AnswerType("object", (("a", JSON),)), id="member of any kind"),
        pytest.param({"anyOf": [{"type": "string"}, {"type": "number"}]}, JSON, id="union"),
        pytest.param({"type": ["string", "number"]}, JSON, id="union of types"),
        pytest.param({"$ref": "#/$defs/E", "$defs": {"E": {"enum": ["a"]}}}, TEXT, id="reference"),
        pytest.param({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, WHOLE, id="escaped reference"),
        pytest.param({"$ref": "#/$defs/no"}, JSON, id="dangling reference"),
        pytest.param({"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "properties": {
            "v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/N"}}}}}},
            AnswerType("object", (("v", WHOLE), ("kids", AnswerType("array", item=JSON)))), id="recursion"),
        pytest.param(True, JSON, id="true"),
        pytest.param({}, JSON, id="anything"),
    ],
)  # fmt: skip
def test_a_schema_stands_for_a_column_type(schema, kind):
    """Fixed shapes become columns; what a schema leaves open becomes JSON text."""
    assert json_type(schema) == kind


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [
        pytest.param(WHOLE, 3.0, 3, id="3.0 as integer"),
        pytest.param(WHOLE, -(2**63), -(2**63), id="smallest integer"),
        pytest.param(NUMBER, 3, 3.0, id="integer as number"),
        pytest.param(TRUTH, False, False, id="false"),
        pytest.param(TEXT, None, None, id="null"),
        pytest.param(JSON, {"b": [1, None], "a": "é"}, '{"a":"é","b":[1,null]}', id="JSON text"),
        pytest.param(JSON, "x", '"x"', id="a text as JSON"),
        pytest.param(AnswerType("object", (("a", WHOLE), ("b", TEXT))), {"a": 1.0, "x": 2}, {"a": 1, "b": None}, id="members"),
        pytest.param(AnswerType("array", item=NUMBER), [1, None], [1.0, None], id="items"),
    ],
)  # fmt: skip
def test_a_value_is_made_to_fit(kind, value, held):
    """Equal in value, of the column's own Python type."""
    assert fit(value, kind) == held
    assert type(fit(value, kind)) is type(held)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 1e30])
def test_an_integer_beyond_64_bits_does_not_fit(value):
    """It is refused when the answer is read, so no row fails later."""
    with pytest.raises(AnswerError, match="beyond 64 bits"):
        fit({"n": value}, AnswerType("object", (("n", WHOLE),)))
