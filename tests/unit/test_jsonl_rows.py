"""JSON Lines files: inferred columns, bad lines."""

import gzip
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.records.errors import InputError
from transforms.records.failure import DeadLetter, FailureKind
from transforms.records.row import RawRow
from transforms.records.settings import InputSettings
from transforms.storage import input_lines, jsonl_rows
from transforms.storage.inputs import expand, input_schema, read_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for files that a test writes over."""
    return tmp_path_factory.mktemp("jsonl")


def load(folder, data, name="x.jsonl", **options):
    """Write a file; give its schema and all of its rows."""
    path = folder / name
    path.write_bytes(data)
    job_input = InputSettings(path=str(path), **options)
    files = expand(job_input, str(folder))
    schema = input_schema(files, job_input)
    return schema, list(read_rows(files[0], job_input, schema))


@pytest.mark.parametrize(
    ("lines", "types", "values"),
    [
        pytest.param(['{"a":1}', '{"a":2.5}'], {"a": pa.float64()}, [{"a": 1.0}, {"a": 2.5}], id="integers widen"),
        pytest.param(['{"a":null}'], {"a": pa.string()}, [{"a": None}], id="nulls only"),
        pytest.param(['{"a":1}', '{"b":"x"}'], {"a": pa.int64(), "b": pa.string()},
                     [{"a": 1}, {"b": "x"}], id="absent keys stay absent"),
        pytest.param(['{"a":null,"b":1}', '{"b":2,"a":3}'], {"a": pa.int64(), "b": pa.int64()},
                     [{"a": None, "b": 1}, {"a": 3, "b": 2}], id="nulls stay null"),
        pytest.param(['{"a":1}', '{"a":"x"}'], {"a": pa.string()}, [{"a": "1"}, {"a": '"x"'}], id="mixed kinds"),
        pytest.param(['{"a":{"b":1}}', '{"a":{"c":[true]}}'],
                     {"a": pa.struct([("b", pa.int64()), ("c", pa.list_(pa.bool_()))])},
                     [{"a": {"b": 1}}, {"a": {"c": [True]}}], id="nested"),
        pytest.param(['{"a":1,"a":2}'], {"a": pa.int64()}, [{"a": 2}], id="a key twice"),
        pytest.param(['{"a":123456789012345678901234567890}'], {"a": pa.string()},
                     [{"a": "123456789012345678901234567890"}], id="integer beyond 64 bits"),
        pytest.param(["", '  {"a":"\\u2028"}\r', "   "], {"a": pa.string()}, [{"a": "\u2028"}], id="blank lines, CRLF"),
        pytest.param(['\ufeff{"a":1}'], {"a": pa.int64()}, [{"a": 1}], id="byte-order mark"),
    ],
)  # fmt: skip
def test_columns_are_inferred(folder, lines, types, values):
    """The columns' types hold every value of the first lines, and Arrow takes the rows as they are."""
    schema, rows = load(folder, "\n".join(lines).encode())
    assert schema.arrow == pa.schema(types)
    assert [row.values for row in rows] == values
    assert pa.Table.from_pylist([row.values for row in rows], schema=schema.arrow).num_rows == len(values)


def test_declared_types_win_and_may_add_columns(folder):
    """input.types replaces what was inferred, and names columns no line has yet."""
    schema, (row,) = load(
        folder,
        b'{"id":5,"when":"2024-05-31","meta":{"x":1}}\n',
        types={"id": "string", "meta": "json", "late": "float"},
    )
    assert row.values == {"id": "5", "when": "2024-05-31", "meta": '{"x":1}'}
    assert schema.names == ["id", "when", "meta", "late"]


@pytest.mark.parametrize(
    ("bad", "kind", "words", "row"),
    [
        pytest.param(b'{"a":', FailureKind.MALFORMED_ROW, "line 2 is not a JSON object", '{"a":', id="broken"),
        pytest.param(b"[1]", FailureKind.MALFORMED_ROW, "holds a JSON array", "[1]", id="array"),
        pytest.param(b"null", FailureKind.MALFORMED_ROW, "holds a JSON null", "null", id="null"),
        pytest.param(b'{"a":NaN}', FailureKind.MALFORMED_ROW, "NaN and Infinity are not JSON", '{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":"\xff"}', FailureKind.UNDECODABLE, "byte 7", '{"a":"\\xff"}', id="undecodable"),
        pytest.param(b'{"a":"\\ud800"}', FailureKind.MALFORMED_ROW, "surrogate", '{"a":"\\ud800"}', id="lone surrogate"),
        pytest.param(b'{"z":1}', FailureKind.MALFORMED_ROW, 'the key "z"', {"z": 1}, id="unknown key"),
        pytest.param(b'{"a":"x"}', FailureKind.WRONG_TYPE, "line 2, column a", {"a": "x"}, id="wrong type"),
        pytest.param(b'{"a":18446744073709551616}', FailureKind.WRONG_TYPE, "18446744073709551616 is beyond 64 bits",
                     '{"a":18446744073709551616}', id="integer beyond 64 bits"),
        pytest.param(b'{"a":' + b"[" * 150 + b"]" * 150 + b"}", FailureKind.MALFORMED_ROW, "nested more than",
                     '{"a":' + "[" * 150 + "]" * 150 + "}", id="nested too deep"),
    ],
)  # fmt: skip
def test_a_bad_line_is_one_dead_letter(folder, monkeypatch, bad, kind, words, row):
    """A bad line beyond the sample says what is wrong; its neighbours are read."""
    monkeypatch.setattr(jsonl_rows, "SAMPLE_LINES", 1)
    _, results = load(folder, b'{"a":1}\n' + bad + b'\n{"a":3}\n')
    assert [(one.line, isinstance(one, DeadLetter)) for one in results] == [(1, False), (2, True), (3, False)]
    letter = results[1]
    assert (letter.kind, letter.row, letter.row_id) == (kind, row, "line:x.jsonl:2")
    assert words in letter.reason


def test_a_bad_line_in_the_sample_does_not_matter(folder):
    """Broken first lines are passed over when columns are inferred."""
    schema, results = load(folder, b'{"a"\n[]\n{"a":1}\n')
    assert schema.names == ["a"]
    assert [isinstance(one, DeadLetter) for one in results] == [True, True, False]


def test_an_overlong_line_is_refused(folder, monkeypatch):
    """A line beyond the bound becomes a dead letter."""
    monkeypatch.setattr(input_lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(jsonl_rows, "MAX_LINE_BYTES", 100)
    _, results = load(folder, b'{"a":1}\n{"a":"' + b"x" * 500 + b'"}\n{"a":3}\n')
    assert [isinstance(one, DeadLetter) for one in results] == [False, True, False]


def test_the_sample_is_spread_over_the_files(folder, monkeypatch):
    """Each file shows some of its lines, so that a later file's columns are seen."""
    monkeypatch.setattr(jsonl_rows, "SAMPLE_LINES", 4)
    (folder / "p1.jsonl").write_bytes(b'{"a":1}\n' * 10)
    (folder / "p2.jsonl").write_bytes(b'{"b":1}\n' * 10)
    job_input = InputSettings(path=str(folder / "p?.jsonl"))
    assert input_schema(expand(job_input), job_input).names == ["a", "b"]


def test_a_file_without_columns_stops_before_launch(folder):
    """Nothing can be asked about rows that have no columns."""
    with pytest.raises(InputError, match="columns are unknown"):
        load(folder, b"\n")
    assert load(folder, b"\n", types={"a": "string"})[1] == []


def test_a_cut_gzip_file_gives_what_can_be_read(folder):
    """The cut is one dead letter."""
    whole = gzip.compress(b"".join(b'{"a":%d}\n' % (number**9) for number in range(30_000)))
    _, results = load(folder, whole[: len(whole) // 2], "x.jsonl.gz")
    assert [isinstance(one, DeadLetter) for one in results] == [False] * (len(results) - 1) + [True]
    assert results[-1].line == len(results)
    assert results[-1].kind is FailureKind.DAMAGED_FILE


PIECES = st.sampled_from(
    [b'{"a":1}', b'"a"', b"{", b"}", b"\n", b"\r", b"\xff", b"\0", b" ", b"NaN", b'{"a":[1]}', b"9" * 25]
)


@settings(max_examples=80)
@given(st.lists(PIECES, max_size=20))
def test_every_line_of_arbitrary_bytes_is_accounted_for(folder, pieces):
    """No bytes raise, and each line that is not blank is one row or one dead letter."""
    body = b"".join(pieces)
    _, results = load(folder, b'{"a":1}\n' + body)
    lines = [number for number, line in enumerate(body.split(b"\n"), 2) if line.strip()]
    assert [one.line for one in results] == [1, *lines]


@settings(max_examples=40)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(-(2**60), 2**60) | st.text(max_size=5)),
        max_size=5,
    )
)
def test_objects_are_read_back(folder, objects):
    """Every object comes back, as itself or as JSON text where kinds mix."""
    data = "".join(json.dumps(one) + "\n" for one in [{"d": 1}, *objects]).encode()
    schema, results = load(folder, data)
    shapes = {column.name: column.shape for column in schema.columns}
    assert all(isinstance(one, RawRow) for one in results)
    for row, one in zip(results[1:], objects, strict=True):
        values = {
            name: json.loads(value) if shapes[name] == "json" and value is not None else value
            for name, value in row.values.items()
        }
        assert values == one
