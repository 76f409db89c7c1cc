"""Typing of text and JSON values, and shapes of JSON values."""

import datetime as dt
import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.rules.shapes import (
    MAX_MEMBERS,
    ListShape,
    StructShape,
    infer_shape,
    merge_shapes,
    settle_shape,
)
from transforms.rules.values import json_converter, json_text, show_value, text_converter, wrong_type

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        pytest.param("integer", "42", 42, id="integer"),
        pytest.param("integer", " -7 ", -7, id="integer with spaces"),
        pytest.param("integer", str(2**63 - 1), 2**63 - 1, id="largest integer"),
        pytest.param("integer", "", None, id="empty integer"),
        pytest.param("float", "1e3", 1000.0, id="float"),
        pytest.param("float", "", None, id="empty float"),
        pytest.param("boolean", "YES", True, id="yes"),
        pytest.param("boolean", "0", False, id="zero"),
        pytest.param("boolean", "", None, id="empty boolean"),
        pytest.param("date", "2024-05-31", dt.date(2024, 5, 31), id="date"),
        pytest.param("date", "", None, id="empty date"),
        pytest.param("timestamp", "2024-05-31T12:00:00Z", dt.datetime(2024, 5, 31, 12, tzinfo=dt.UTC), id="zulu"),
        pytest.param("timestamp", "2024-05-31 12:00", dt.datetime(2024, 5, 31, 12, tzinfo=dt.UTC), id="naive is UTC"),
        pytest.param("timestamp", "2024-05-31T12:00+02:00", dt.datetime(2024, 5, 31, 10, tzinfo=dt.UTC), id="offset"),
        pytest.param("timestamp", "", None, id="empty timestamp"),
        pytest.param("decimal", "1.50", Decimal("1.50"), id="decimal"),
        pytest.param("decimal", "0", Decimal(0), id="decimal zero"),
        pytest.param("decimal", "", None, id="empty decimal"),
        pytest.param("json", '{"a": 1}', '{"a": 1}', id="json stays text"),
        pytest.param("json", "", None, id="empty json"),
    ],
)
def test_text_becomes_the_declared_type(kind, text, value):
    """A good field is typed; an empty one is null."""
    assert text_converter(kind)(text) == value


def test_text_columns_need_no_converter():
    """A string column keeps its text, the empty one too."""
    assert text_converter("string") is None


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        pytest.param("integer", "4.2", "whole number", id="fraction"),
        pytest.param("integer", "1_000", "whole number", id="underscore"),
        pytest.param("integer", str(2**63), "64 bits", id="beyond 64 bits"),
        pytest.param("float", "abc", "number", id="no number"),
        pytest.param("float", "nan", "finite", id="nan"),
        pytest.param("float", "1_0", "finite", id="underscore in a float"),
        pytest.param("boolean", "maybe", "true, false", id="no boolean"),
        pytest.param("date", "31.05.2024", "2024-05-31", id="no date"),
        pytest.param("timestamp", "noon", "timestamp", id="no timestamp"),
        pytest.param("timestamp", "0001-01-01T00:00+14:00", "timestamp", id="before the first year"),
        pytest.param("decimal", "x", "decimal", id="no decimal"),
        pytest.param("decimal", "NaN", "decimal", id="decimal nan"),
        pytest.param("decimal", "0.0000000001", "after the point", id="too fine"),
        pytest.param("decimal", "1e30", "before the point", id="too large"),
        pytest.param("json", "{", "JSON", id="broken json"),
    ],
)
def test_bad_text_is_refused_with_what_would_do(kind, text, problem):
    """A field that does not fit says what its type takes."""
    with pytest.raises(ValueError, match=problem):
        text_converter(kind)(text)


@pytest.mark.parametrize(
    ("kind", "value", "typed"),
    [
        pytest.param("string", 5, "5", id="number to text"),
        pytest.param("string", True, "true", id="boolean to text"),
        pytest.param("string", 2**70, str(2**70), id="long integer to text"),
        pytest.param("integer", "5", 5, id="text to integer"),
        pytest.param("integer", 5.0, 5, id="whole float to integer"),
        pytest.param("float", 5, 5.0, id="integer to float"),
        pytest.param("float", "5.5", 5.5, id="text to float"),
        pytest.param("boolean", 1, True, id="one to boolean"),
        pytest.param("boolean", "no", False, id="text to boolean"),
        pytest.param("decimal", 1.1, Decimal("1.1"), id="float to decimal"),
        pytest.param("date", "2024-05-31", dt.date(2024, 5, 31), id="text to date"),
        pytest.param("json", {"b": [1]}, '{"b":[1]}', id="object to json text"),
    ],
)
def test_declared_json_values_are_converted(kind, value, typed):
    """A type that the job names is met where nothing is lost."""
    assert json_converter(kind, declared=True)(value) == typed


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param("string", 5, id="number in a text column"),
        pytest.param("integer", True, id="boolean in an integer column"),
        pytest.param("integer", "5", id="text in an integer column"),
        pytest.param("integer", 2**63, id="integer beyond 64 bits"),
        pytest.param("float", 2**53 + 1, id="integer no float holds"),
        pytest.param("float", 10**400, id="integer beyond any float"),
        pytest.param("boolean", 1, id="number in a boolean column"),
        pytest.param("date", 5, id="number in a date column"),
        pytest.param(ListShape("integer"), {"a": 1}, id="object in a list column"),
        pytest.param(ListShape("integer"), ["a"], id="text in a list of integers"),
        pytest.param(StructShape((("a", "integer"),)), [1], id="list in a struct column"),
        pytest.param(StructShape((("a", "integer"),)), {"b": 1}, id="unknown member"),
    ],
)
def test_inferred_json_types_take_only_what_they_are(kind, value):
    """A value of another kind than the first rows had is refused, not bent."""
    with pytest.raises(ValueError):
        json_converter(kind, declared=False)(value)


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        pytest.param([1, None], "integer", id="integers"),
        pytest.param([1, 2.5], "float", id="integers widen"),
        pytest.param([None], "string", id="nulls only"),
        pytest.param([1, "a"], "json", id="mixed kinds"),
        pytest.param([True, 1], "json", id="booleans are no integers"),
        pytest.param([2**70], "json", id="beyond 64 bits"),
        pytest.param([[1], [2.5], []], ListShape("float"), id="lists"),
        pytest.param([[None]], ListShape("string"), id="list of nulls"),
        pytest.param([{"a": 1}, {"b": "x"}], StructShape((("a", "integer"), ("b", "string"))), id="structs unite"),
        pytest.param([{}], "json", id="empty struct"),
        pytest.param([{str(i): 1 for i in range(MAX_MEMBERS + 1)}], "json", id="a map"),
        pytest.param([{f"{j}_{i}": 1 for i in range(150)} for j in range(2)], "json", id="a map over rows"),
        pytest.param([[1], {"a": 1}], "json", id="list and struct"),
    ],
)
def test_shapes_hold_all_values(values, shape):
    """The merged shape is the narrowest that fits, and json where kinds mix."""
    merged = None
    for value in values:
        merged = merge_shapes(merged, infer_shape(value))
    assert settle_shape(merged) == shape


@settings(max_examples=60)
@given(st.lists(JSON_VALUES, min_size=1, max_size=4))
def test_what_was_inferred_converts(values):
    """Every value fits the shape inferred from it and its neighbours, unless a number would lose digits."""
    merged = None
    for value in values:
        merged = merge_shapes(merged, infer_shape(value))
    convert = json_converter(settle_shape(merged), declared=False)
    for value in values:
        if value is not None:
            try:
                convert(value)
            except ValueError as error:
                assert "more digits than a float holds" in str(error)  # noqa: PT017


def test_json_text_keeps_long_integers():
    """An integer beyond 64 bits keeps its digits."""
    assert json.loads(json_text({"n": 2**80})) == {"n": 2**80}


def test_a_wrong_type_names_line_column_value_and_cure():
    """The sentence is enough to act on."""
    error = wrong_type(7, "price", "abc", "is not a number (float)")
    assert error.reason == (
        'line 7, column price: "abc" is not a number (float); '
        "correct the value, or declare another type in the job (input.types: {price: string})"
    )
    assert len(show_value("x" * 500)) < 70
