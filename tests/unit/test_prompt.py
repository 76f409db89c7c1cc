"""Rows become prompts (rules/prompt.py, templating.py, lookup.py, canonical.py)."""

import datetime as dt
import hashlib
import pickle
from decimal import Decimal

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from transforms.records.errors import ConfigError, RowError
from transforms.records.failure import FailureKind
from transforms.records.request import Prompt
from transforms.rules.lookup import parse_lookup
from transforms.rules.prompt import MAX_PROMPT_CHARS, PromptTemplate

LOOKUP = {"labels": ["good", "bad"]}


def text_of(template, values, **options):
    """Render one row and return the user part."""
    return PromptTemplate(None, template, **options).render(values).prompt.turns[0][1]


def test_a_prompt_has_the_system_part_and_one_user_turn():
    """System and user parts are rendered from the same row."""
    rendered = PromptTemplate("You label {{ row.kind }}.", "Review: {{ row.text }}\n").render(
        {"text": "ok", "kind": "x"}
    )
    assert rendered.prompt == Prompt("You label x.", (("user", "Review: ok"),))
    assert rendered.shown_prompt is None


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        pytest.param("{{ row.a }}", {"a": "<&'>"}, "<&'>", id="nothing is escaped"),
        pytest.param("x{{ row.a }}", {"a": None}, "x", id="None is nothing"),
        pytest.param("{{ row.a }}", {"a": dt.date(2024, 5, 31)}, "2024-05-31", id="date"),
        pytest.param("{{ row.a }}", {"a": dt.datetime(2024, 5, 31, 1, tzinfo=dt.UTC)}, "2024-05-31T01:00:00+00:00", id="timestamp"),
        pytest.param("{{ row.a }}", {"a": Decimal("1.50")}, "1.50", id="decimal"),
        pytest.param("{{ row.a }}", {"a": {"é": [1, None]}}, '{"é": [1, null]}', id="objects are JSON"),
        pytest.param("{{ row.a | tojson }}", {"a": "<é>"}, '"<é>"', id="tojson is plain JSON"),
        pytest.param("{{ row.items }} {{ row['get'] }}", {"items": 3, "get": 4}, "3 4", id="columns before methods"),
        pytest.param("{{ row._id }}", {"_id": 7}, "7", id="a column may begin with an underscore"),
        pytest.param("{{ row['two words'] }}", {"two words": 1}, "1", id="any column name by item"),
        pytest.param("{% for c in row %}{{ c }}={{ row[c] }};{% endfor %}", {"a": 1, "b": 2}, "a=1;b=2;", id="whole row"),
        pytest.param("{{ row.b | default('none') }}", {"a": 1}, "none", id="a default for a missing column"),
        pytest.param("{% if row.b is defined %}b{% else %}no{% endif %}", {"a": 1}, "no", id="is defined"),
        pytest.param("{{ row.a.upper() }}", {"a": "x"}, "X", id="harmless methods of values"),
        pytest.param("{{ lookup.labels | join('/') }}", {}, "good/bad", id="lookup"),
        pytest.param("{{ row.a | map('upper') }}", {"a": ["x", "é"]}, '["X", "É"]', id="a generator is a JSON list"),
        pytest.param("{{ row.a | batch(2) }}", {"a": [1, 2, 3]}, "[[1, 2], [3]]", id="a generator of lists"),
        pytest.param("{{ row.a | reverse }}", {"a": [1, 2]}, "[2, 1]", id="an iterator"),
        pytest.param("{{ {'k': row.a | map('upper')} }}", {"a": ["x"]}, '{"k": ["X"]}', id="a generator in an object"),
        pytest.param("{{ row.a | map('upper') | tojson }}", {"a": ["x"]}, '["X"]', id="a generator to tojson"),
        pytest.param("{{ row.a ~ '!' }}", {"a": {"k": None}}, '{"k": null}!', id="joined as printed alone"),
        pytest.param("{{ row.a | map('upper') ~ '!' }}", {"a": ["x"]}, '["X"]!', id="a generator joined"),
        pytest.param("{{ row.a | map('upper') | string }}", {"a": ["x"]}, '["X"]', id="a generator made a string"),
        pytest.param("{{ row.a | map('upper') | upper }}", {"a": ["x"]}, "['X']", id="a generator to a filter of text"),
        pytest.param("{{ '%s' | format(row.a | select) }}", {"a": [0, 1]}, "[1]", id="a generator formatted"),
        pytest.param("{{ (row.a, row.a) }}", {"a": 1}, "[1, 1]", id="a tuple"),
        pytest.param("{{ row.a }}", {"a": {"b", "c", "a"}}, '["a", "b", "c"]', id="a set is sorted"),
        pytest.param("{{ row.a.keys() }} {{ row.a.items() }}", {"a": {"k": 1}}, '["k"] [["k", 1]]', id="views of an object"),
        pytest.param("{{ range(row.a) }}", {"a": 3}, "[0, 1, 2]", id="range"),
        pytest.param("{{ row.a.items }} {{ row.a['keys'] }}", {"a": {"items": 3, "keys": 4}}, "3 4", id="members before methods"),
        pytest.param("{% for k, v in row.a.items() %}{{ k }}{{ v }}{% endfor %}", {"a": {"k": 1}}, "k1", id="methods of objects"),
        pytest.param("{{ row.a }} {{ row.b }}", {"a": dt.time(1, 2), "b": dt.timedelta(days=1)}, "01:02:00 1 day, 0:00:00",
                     id="time and duration"),
        pytest.param("{{ '{:>3}'.format(row.a) }}", {"a": 1}, "  1", id="format"),
        pytest.param("{% macro m(x) %}{{ x }}{% endmacro %}{{ m(row.a) }}", {"a": 1}, "1", id="a macro that is called"),
    ],
)  # fmt: skip
def test_a_template_renders(template, values, expected):
    """What a template writes, value by value."""
    assert text_of(template, values, lookup=LOOKUP) == expected


@pytest.mark.parametrize(
    ("template", "values", "kind", "words"),
    [
        pytest.param("{{ row.txt }}", {"text": "a", "id": 1}, FailureKind.MISSING_COLUMN,
                     "template names column 'txt', which the row does not have; columns are text, id", id="missing column"),
        pytest.param("\n{{ 1 / row.n }}", {"n": 0}, FailureKind.TEMPLATE_ERROR, "line 2 fails on this row: ZeroDivision", id="line"),
        pytest.param("{% macro m(a) %}\n{{ a.x.y }}{% endmacro %}\n{{ m(row.n) }}", {"n": 0}, FailureKind.TEMPLATE_ERROR,
                     "line 2", id="line in a macro"),
        pytest.param("{% for i in range(100001) %}{{ row.n }}{% endfor %}", {"n": 0}, FailureKind.TEMPLATE_ERROR, "Range too big", id="range"),
        pytest.param("{% for i in range(99999) %}{{ row.n }}{% endfor %}", {"n": "x" * 100}, FailureKind.TEMPLATE_ERROR,
                     f"more than {MAX_PROMPT_CHARS:,} characters", id="too long"),
        pytest.param("{{ row.n.__class__.__mro__ }}", {"n": ""}, FailureKind.TEMPLATE_ERROR, "SecurityError", id="sandbox"),
        pytest.param("{{ row.n.append(1) }}", {"n": []}, FailureKind.TEMPLATE_ERROR, "SecurityError", id="immutable"),
        pytest.param("{{ row.n }}", {"n": "\ud800"}, FailureKind.TEMPLATE_ERROR, "not valid Unicode", id="surrogate"),
        pytest.param("{{ row.n }}", {"n": "  "}, FailureKind.TEMPLATE_ERROR, "gives no text", id="empty"),
        pytest.param("\n{{ row.n.upper }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR,
                     "prompt.template line 2 gives a method, which is no text; did you forget ()?", id="method"),
        pytest.param("{{ row.n.items }}", {"n": {}}, FailureKind.TEMPLATE_ERROR, "gives a method", id="method of an object"),
        pytest.param("{{ row.n['upper'] }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "gives a method", id="method by item"),
        pytest.param("{{ row.n.upper ~ '!' }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "gives a method", id="method joined"),
        pytest.param("{{ [row.n.upper] }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "gives a method", id="method in a list"),
        pytest.param("{{ row.n.upper | tojson }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "gives a method", id="method to tojson"),
        pytest.param("{{ row.n.upper | lower }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "gives a method", id="method to a filter"),
        pytest.param("{{ '%s' % row.n.upper }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "gives a method", id="method formatted"),
        pytest.param("{{ row.n }}{{ cycler(1) }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "gives a Cycler", id="cycler"),
        pytest.param("{{ row.n }}{{ namespace(a=1) }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "gives a Namespace", id="namespace"),
        pytest.param("{{ row.n }}{{ range }}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "did you forget ()", id="function"),
        pytest.param("{% macro m() %}{% endmacro %}{{ row.n }}{{ m }}", {"n": ""}, FailureKind.TEMPLATE_ERROR, "gives a Macro", id="macro"),
        pytest.param("{% for x in row.n %}{{ loop }}{% endfor %}", {"n": "a"}, FailureKind.TEMPLATE_ERROR, "gives a LoopContext", id="loop"),
        pytest.param("{{ row.n }}", {"n": b"a"}, FailureKind.TEMPLATE_ERROR, "gives bytes, which are no text", id="bytes"),
        pytest.param("{{ row.n }}", {"n": object()}, FailureKind.TEMPLATE_ERROR, "gives a object", id="anything else"),
        pytest.param("{{ row.n.x }}", {"n": {}}, FailureKind.TEMPLATE_ERROR, "no attribute 'x'", id="undefined member"),
        pytest.param("{{ [row.n.x] }}", {"n": {}}, FailureKind.TEMPLATE_ERROR, "no attribute 'x'", id="undefined in a list"),
        pytest.param("{{ [row.x] }}", {"n": {}}, FailureKind.MISSING_COLUMN, "names column 'x'", id="missing column in a list"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_rendered_says_why(template, values, kind, words):
    """The kind and the sentence of each failure."""
    with pytest.raises(RowError) as caught:
        text_of(template, values)
    assert caught.value.kind is kind
    assert words in caught.value.reason


@pytest.mark.parametrize(
    ("template", "words"),
    [
        pytest.param("a\n{{ row.x", "t.j2 line 2: unexpected end of template", id="syntax"),
        pytest.param("{{ row.x | shout }}", "t.j2 line 1: unknown filter 'shout'", id="filter"),
        pytest.param("{% if row.x %}{{ row.x | shout }}{% endif %}", "unknown filter 'shout'", id="filter in a branch"),
        pytest.param("{{ row.x is tall }}", "unknown test 'tall'", id="test"),
        pytest.param("{{ row.x | random }}", "prompts may not differ by chance", id="random"),
        pytest.param("{{ lipsum() }}", "'lipsum' is not defined", id="lipsum"),
        pytest.param("\n{{ text }}", "t.j2 line 2: 'text' is not defined; write row.text", id="bare column"),
        pytest.param("{% include 'x' %}", "can't include, import or extend", id="include"),
        pytest.param("{{ lookup.states }}", "names lookup 'states', which the job does not give", id="lookup"),
        pytest.param("{{ 1 / 0 }}", "ZeroDivisionError", id="fails on every row"),
        pytest.param("", "t.j2 gives no text; write what to ask", id="empty"),
        pytest.param(" \n\t", "t.j2 gives no text", id="blank"),
        pytest.param("{# later #}", "t.j2 gives no text", id="only a comment"),
        pytest.param("{{ cycler }}", "t.j2 line 1 gives a type, which is no text", id="not text in any row"),
    ],
)
def test_a_template_that_cannot_work_is_refused_before_launch(template, words):
    """The sentence has the source, the line and the cure."""
    with pytest.raises(ConfigError) as caught:
        PromptTemplate(None, template, lookup=LOOKUP, template_source="t.j2")
    assert words in str(caught.value)


def test_check_names_the_missing_column_and_the_likely_one():
    """A column the input lacks stops the job before anything is spent."""
    template = PromptTemplate("{{ row.id }}", "\n{{ row.txt }}")
    template.check(["id", "txt"])
    with pytest.raises(
        ConfigError, match=r"template line 2 names column 'txt'.*did you mean 'text'.*Columns are id, text"
    ):
        template.check(["id", "text"])


def test_check_lets_optional_and_computed_columns_pass():
    """Columns with a default, tested ones, and names only known per row are no error before launch."""
    PromptTemplate(None, "{{ row.a | default(1) }}{% if row.b is defined %}{{ row.b }}{% endif %}").check([])
    PromptTemplate(None, "{{ row[lookup.labels[0]] }}", LOOKUP).check([])
    PromptTemplate(None, "{% for row in lookup.labels %}{{ row.x }}{% endfor %}", LOOKUP)


def test_columns_used_are_known_where_they_can_be():
    """Names written outright are known; a row used as a whole may read anything."""
    assert PromptTemplate("{{ row.b }}", "{{ row['a'] }}{{ row.b }}").columns_used == ("a", "b")
    assert PromptTemplate(None, "plain").columns_used == ()
    assert PromptTemplate(None, "{{ row | tojson }}").columns_used is None


def test_hashes_are_what_their_names_say():
    """Each hash can be recomputed with the RFC 8785 library and sha256 alone."""
    rendered = PromptTemplate("S", "{{ row.a }}", LOOKUP, {"labels": "l.yaml"}).render({"a": 1.0, "b": "other"})

    def sha(value):
        return hashlib.sha256(rfc8785.dumps(value)).hexdigest()

    assert rendered.hashes.template == sha(["S", "{{ row.a }}"])
    assert rendered.hashes.variables == sha({"a": 1.0})
    assert rendered.hashes.lookup == sha(LOOKUP)
    assert rendered.hashes.prompt == sha(["S", [["user", "1.0"]]])


def test_variables_hash_sees_only_columns_the_template_reads():
    """A column the prompt does not use does not change the hash; with the whole row in use, each does."""
    narrow, wide = PromptTemplate(None, "{{ row.a }}"), PromptTemplate(None, "{{ row | tojson }}")
    one, two = {"a": "x", "b": 1}, {"a": "x", "b": 2}
    assert narrow.render(one).hashes.variables == narrow.render(two).hashes.variables
    assert wide.render(one).hashes.variables != wide.render(two).hashes.variables


def test_without_lookups_there_is_no_lookup_hash():
    """Hash and source of the lookup are null together."""
    template = PromptTemplate(None, "x")
    assert (template.lookup_sha256, template.lookup_source) == (None, None)
    assert PromptTemplate(None, "x", LOOKUP, {"labels": "l.yaml"}).lookup_source == "labels=l.yaml"


def test_redacted_columns_are_sent_but_not_shown():
    """The shown prompt has the marker where the value is; hashes are of what is sent."""
    plain = PromptTemplate(None, "{{ row.name }} says {{ row.text }}").render({"name": "Ann", "text": "hi"})
    rendered = PromptTemplate(None, "{{ row.name }} says {{ row.text }}", redact=["name"]).render(
        {"name": "Ann", "text": "hi"}
    )
    assert rendered.prompt.turns[0][1] == "Ann says hi"
    assert rendered.shown_prompt == Prompt(None, (("user", "[redacted] says hi"),))
    assert rendered.hashes == plain.hashes


def test_nothing_is_shown_where_redaction_breaks_the_template():
    """A value that is computed with can't be replaced by a text; then the whole prompt is hidden and the row goes on."""
    rendered = PromptTemplate("s", "{{ row.n + 1 }}", redact=["n"]).render({"n": 1})
    assert rendered.prompt.turns == (("user", "2"),)
    assert rendered.shown_prompt == Prompt(None, (("user", "[redacted]"),))


def test_no_second_rendering_where_no_redacted_column_is_read():
    """Redaction of columns the template does not read leaves nothing to hide."""
    assert PromptTemplate(None, "{{ row.a }}", redact=["b"]).render({"a": "x", "b": "y"}).shown_prompt is None


def test_a_template_survives_pickling_without_its_compiled_form():
    """A worker gets sources and compiles them itself; results are the same."""
    template = PromptTemplate("S {{ lookup.labels }}", "{{ row.a }}", LOOKUP, redact=["a"])
    first = template.render({"a": 1})
    copy = pickle.loads(pickle.dumps(template))  # noqa: S301 - our own bytes
    assert not {"_parts", "_environment"} & copy.__dict__.keys()
    assert copy.render({"a": 1}) == first


@given(st.dictionaries(st.sampled_from("abc"), st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_values_are_never_taken_for_template_code(values):
    """Row values are data, whatever they look like: the prompt is exactly the value."""
    name = next(iter(values))
    value = values[name]
    if not value.strip():
        value = values[name] = f"<{value}>"
    assert text_of("{{ row.%s }}" % name, values) == value  # noqa: UP031 - braces


@pytest.mark.parametrize(
    ("suffix", "data", "expected"),
    [
        pytest.param(".yaml", b"a: [1, x]", {"a": [1, "x"]}, id="yaml"),
        pytest.param(".YML", b"- a", ["a"], id="yml in capitals"),
        pytest.param(".json", b'\xef\xbb\xbf{"a": 1}', {"a": 1}, id="json with a byte order mark"),
        pytest.param(".csv", b'k,v\r\na,"1,2"\r\n\r\nb,\r\n', [{"k": "a", "v": "1,2"}, {"k": "b", "v": ""}], id="csv"),
        pytest.param(".txt", "Grüße\n".encode(), "Grüße\n", id="txt"),
    ],
)
def test_a_lookup_file_becomes_data(suffix, data, expected):
    """Each format gives its natural value."""
    assert parse_lookup("labels", suffix, data) == expected


@pytest.mark.parametrize(
    ("suffix", "data", "words"),
    [
        pytest.param(".xml", b"", "files ending in '.xml' are not read; use .yaml", id="suffix"),
        pytest.param(".txt", b"ok\xff", "not UTF-8 at byte 2", id="bytes"),
        pytest.param(".json", b"{", "not a valid .json file", id="json"),
        pytest.param(".yaml", b"a: [", "not a valid .yaml file", id="yaml"),
        pytest.param(".yaml", b"&a [*a]", "contains itself", id="yaml in a circle"),
        pytest.param(".csv", b"k,v\na\n", "line 2 has 1 values for 2 columns", id="short line"),
        pytest.param(".csv", b"k,k\na,b\n", "two columns have the same name", id="same column"),
        pytest.param(".csv", b"", "first line must name the columns", id="empty csv"),
        pytest.param(".csv", b'k\n"a', "not a valid .csv file", id="open quote"),
    ],
)  # fmt: skip
def test_a_bad_lookup_file_is_refused_with_its_name(suffix, data, words):
    """The sentence names the lookup and the problem."""
    with pytest.raises(ConfigError) as caught:
        parse_lookup("labels", suffix, data)
    assert "lookup 'labels'" in str(caught.value)
    assert words in str(caught.value)
