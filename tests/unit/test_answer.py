"""Text becomes a checked value (rules/answer.py, answer_text.py, answer_mend.py)."""

import json
import pickle

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transforms.records.errors import AnswerError, ConfigError
from transforms.rules.answer import AnswerReader

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["positive", "negative", "neutral"]},
        "score": {"type": "number"},
        "count": {"type": "integer"},
        "why": {"type": "string"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["label"],
    "additionalProperties": False,
}
READER = AnswerReader(SCHEMA)
POSITIVE = {"label": "positive"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('{"label": "positive"}', POSITIVE, id="plain"),
        pytest.param(' \n{"label":"positive"}\n ', POSITIVE, id="white space"),
        pytest.param('```json\n{"label": "positive"}\n```', POSITIVE, id="fence"),
        pytest.param('Here it is:\n```\n{"label": "positive"}\n```\nGlad to help [1].', POSITIVE, id="fence in prose"),
        pytest.param('Sure! {"label": "positive"} Anything else?', POSITIVE, id="prose"),
        pytest.param('{"label": "positive"}\n{"label": "positive"}', POSITIVE, id="said twice alike"),
        pytest.param("{'label': 'positive',}", POSITIVE, id="single quotes and a comma"),
        pytest.param("{label: positive}", POSITIVE, id="no quotes"),
        pytest.param('{"label": "positive"', POSITIVE, id="no closing bracket"),
        pytest.param('{"label": "positive", "why": "a\nb"}', POSITIVE | {"why": "a\nb"}, id="raw line break"),
        pytest.param('{"label": "positive", "score": 1.50,}', POSITIVE | {"score": 1.5}, id="a number stays"),
        pytest.param("{'label': 'positive', 'note': None}", POSITIVE | {"note": None}, id="python's None"),
        pytest.param('{"label": "POSITIVE"}', POSITIVE, id="letter case of an enum"),
        pytest.param('{"label": "positive", "why": null, "count": null}', POSITIVE, id="null for an optional member"),
        pytest.param('{"label": "positive", "note": null}', POSITIVE | {"note": None}, id="null where it is allowed"),
        pytest.param('{"label": "positive", "count": 3.0}', POSITIVE | {"count": 3.0}, id="3.0 is an integer"),
        pytest.param('{"label": "positive", "score": 6.02e23}', POSITIVE | {"score": 6.02e23}, id="large float"),
        pytest.param('{"label": "positive", "why": "h\\u00e9 \\ud83d\\ude00"}', POSITIVE | {"why": "hé 😀"}, id="escapes"),
    ],
)  # fmt: skip
def test_an_answer_is_read(text, value):
    """Each form that models use for one clear value."""
    assert READER.read(text) == orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "the answer is empty", id="empty"),
        pytest.param(" \n", "the answer is empty", id="blank"),
        pytest.param("I think it is positive.", "not the JSON that was asked for", id="prose"),
        pytest.param('{"label": "positive", "why": "cut in the mid', "Unterminated string", id="cut in a text"),
        pytest.param("{'label': 'positive', 'count': 12", "not the JSON", id="cut in a number"),
        pytest.param('{"label": }', "Expecting value (character 11)", id="value missing"),
        pytest.param('{"label": "positive", "why": , }', "not the JSON", id="nothing is invented"),
        pytest.param('{"label": "positive", /* a comment */}', "not the JSON", id="nothing is lost"),
        pytest.param('{"label":"positive","label":"negative"}', 'the key "label" occurs twice', id="key twice"),
        pytest.param('Answer: {"label":"positive","label":"positive"}', "occurs twice", id="key twice in prose"),
        pytest.param('{"label":"negative"} or {"label":"positive"}', "2 different JSON values", id="two answers"),
        pytest.param('{"label":"positive","score":NaN}', "NaN is not a JSON value", id="NaN"),
        pytest.param("{'label':'positive','why':NaN}", "not the JSON", id="NaN in almost-JSON"),
        pytest.param('{"label":"positive","score":-Infinity}', "-Infinity is not a JSON value", id="Infinity"),
        pytest.param('{"label":"positive","score":1e999}', "the number 1e999 is too large", id="beyond a double"),
        pytest.param('{"label":"positive","count":1e30}', "the integer 1e+30 is beyond 64 bits", id="integer as float"),
        pytest.param('{"label":"positive","count":9223372036854775808}', "beyond 64 bits", id="2 to the 63rd"),
        pytest.param('{"label":"positive","count":99999999999999999999}', "64-bit", id="integer beyond 64 bits"),
        pytest.param('{"label":"positive","why":"\\ud800"}', "surrogates not allowed", id="half a character"),
        pytest.param('{"label":"happy"}', 'at $.label the value is "happy": it is not one of "positive"', id="enum"),
        pytest.param("[1]", 'at $ the value is [1]: it is not of type "object"', id="wrong top type"),
        pytest.param('[{"label":"positive"}]', 'is not of type "object"', id="object inside a list"),
        pytest.param("{}", '"label" is a required property', id="required"),
        pytest.param('{"label":"positive","x":1}', "'x' was unexpected", id="extra member"),
        pytest.param('{"label": null}', "at $.label the value is null", id="null for a required member"),
        pytest.param("[" * 5000, "nested too deeply", id="too deep"),
        pytest.param("{" * 50_000, "not the JSON", id="brackets without end"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_what_was_asked_for_says_where(text, words):
    """The sentence is what the model is shown in the repair."""
    with pytest.raises(AnswerError) as caught:
        READER.read(text)
    assert words in str(caught.value)


def test_several_problems_are_told_at_once_and_briefly():
    """One repair should do; a long value is cut."""
    with pytest.raises(AnswerError) as caught:
        READER.read(json.dumps({"label": "x" * 5000, "score": "high"}))
    assert "$.label" in str(caught.value)
    assert "$.score" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("schema", "text", "written"),
    [
        pytest.param(None, " hi\n", '"hi"', id="no schema"),
        pytest.param({"enum": ["a", "b"]}, "A", '"a"', id="bare enum member"),
        pytest.param({"enum": ["a", "b"]}, '"b"', '"b"', id="quoted enum member"),
        pytest.param({"type": "string"}, "```\nsome text\n```", '"some text"', id="fenced text"),
        pytest.param({"type": "integer"}, "```\n3\n```", "3", id="fenced number"),
        pytest.param({"const": "Yes"}, '"yes"', '"Yes"', id="const"),
        pytest.param({"anyOf": [{"$ref": "#/$defs/E"}, {"type": "null"}], "$defs": {"E": {"enum": ["x", "y"]}}}, '"X"', '"x"',
                     id="optional enum by reference"),
        pytest.param({"type": "array", "items": {"properties": {"a/b": {"enum": ["k"]}, "o": {"type": "string"}}}},
                     '[{"a/b":"K","o":null}]', '[{"a/b":"k"}]', id="members of items"),
        pytest.param({"allOf": [{"properties": {"k": {"enum": ["v"]}}}]}, '{"k":"V"}', '{"k":"v"}', id="allOf"),
        pytest.param({"properties": {"k": {"anyOf": [{"enum": ["V"]}, {"type": "integer"}]}}}, '{"k":"v"}', '{"k":"V"}', id="anyOf inside"),
        pytest.param({"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "properties": {
            "kids": {"type": "array", "items": {"$ref": "#/$defs/N"}}, "t": {"enum": ["leaf"]}}}}},
            '{"kids":[{"t":"LEAF"}]}', '{"kids":[{"t":"leaf"}]}', id="recursive"),
    ],
)  # fmt: skip
def test_schemas_of_many_forms_are_followed(schema, text, written):
    """References, unions and lists are mended and checked like the top."""
    assert AnswerReader(schema).read(text) == written


def test_letter_case_is_not_guessed_between_two_members():
    """Where two members differ in case only, a third spelling is an error."""
    reader = AnswerReader({"enum": ["a", "A", "ab", "AB"]})
    assert reader.read('"A"') == '"A"'
    with pytest.raises(AnswerError):
        reader.read('"Ab"')


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        pytest.param({"type": "objct"}, "not a usable JSON Schema", id="unknown type"),
        pytest.param({"$ref": "#/$defs/no"}, "does not exist", id="dangling reference"),
        pytest.param({"$ref": "http://127.0.0.1:9/x.json"}, "complete in itself", id="reference to elsewhere"),
        pytest.param({"$ref": "file:///etc/hostname"}, "complete in itself", id="reference to a file"),
        pytest.param({"type": "string", "pattern": "("}, "regex", id="pattern"),
    ],
)
def test_an_unusable_schema_is_refused_before_launch(schema, words):
    """No schema is fetched, and the sentence says what is wrong."""
    with pytest.raises(ConfigError) as caught:
        AnswerReader(schema)
    assert words in str(caught.value)


def test_a_reader_survives_pickling():
    """It travels as its schema and compiles again."""
    assert pickle.loads(pickle.dumps(READER)).read('{"label": "Neutral"}') == '{"label":"neutral"}'  # noqa: S301


PIECES = st.lists(
    st.sampled_from(
        [*'{}[]",:\'`\\', "```json\n", "label", "positive", "null", "NaN", "-1e5", "1e400", " ", "\n", "\\u", "\\ud800", "//", "é"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@given(st.text() | PIECES)
@example("\ud800")
@example("{" + "\ud800")
@example("[{" * 200)
@example('{"a":' * 200 + "1" + "}" * 200)
def test_reading_any_text_gives_json_or_an_answer_error(text):
    """No other exception leaves, and what is returned satisfies the reader again."""
    for reader in (READER, TEXT_READER, ANY_READER):
        try:
            written = reader.read(text)
        except AnswerError:
            continue
        orjson.loads(written)
        if reader is READER:
            assert reader.read(written) == written


TEXT_READER = AnswerReader(None)
ANY_READER = AnswerReader({"anyOf": [{"type": "object"}, {"type": "array"}, {"type": "string"}]})

VALUES = st.fixed_dictionaries(
    {"label": st.sampled_from(["positive", "negative", "neutral"])},
    optional={
        "score": st.floats(allow_nan=False, allow_infinity=False),
        "count": st.integers(-(2**63), 2**63 - 1),
        "why": st.text(st.characters(exclude_categories=["Cs"])),
    },
)


@given(VALUES, st.sampled_from(["%s", "```json\n%s\n```", "Here you are: %s"]))
def test_a_valid_value_is_read_back_unchanged(value, frame):
    """Whatever a valid answer holds, plain or framed, it comes out as it went in."""
    if frame != "%s" and "```" in value.get("why", ""):
        frame = "%s"
    assert orjson.loads(READER.read(frame % json.dumps(value))) == value
