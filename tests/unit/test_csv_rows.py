"""CSV files: quoting, bad lines, stray quotes, damage."""

import csv
import gzip
import io
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.csv_builders import letters_of, read, rows_of
from transforms.records.errors import InputError
from transforms.records.failure import FailureKind, Stage
from transforms.records.row import RawRow
from transforms.records.settings import InputSettings
from transforms.storage import csv_rows, input_lines
from transforms.storage.inputs import expand, input_schema, read_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for files that a test writes over."""
    return tmp_path_factory.mktemp("csv")


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        pytest.param(b"a,b\n1,x\n", [(2, ["1", "x"])], id="plain"),
        pytest.param(b"a,b\r\n1,x\r\n2,y", [(2, ["1", "x"]), (3, ["2", "y"])], id="CRLF, no end of line at the end"),
        pytest.param(b"\xef\xbb\xbfa,b\n1,x\n", [(2, ["1", "x"])], id="byte-order mark"),
        pytest.param(b'\xef\xbb\xbf"a",b\n1,x\n', [(2, ["1", "x"])], id="byte-order mark and quoted header"),
        pytest.param(b"\n\na,b\n\n1,x\n\r\n2,y\n\n", [(5, ["1", "x"]), (7, ["2", "y"])], id="blank lines"),
        pytest.param(b'a,b\n1,"x\ny\n"\n2,z\n', [(2, ["1", "x\ny\n"]), (5, ["2", "z"])], id="field over lines"),
        pytest.param(b'a,b\n1,"say ""hi"", x"\n', [(2, ["1", 'say "hi", x'])], id="quotes and delimiter in a field"),
        pytest.param(b'a,b\n1,5" pipe\n', [(2, ["1", '5" pipe'])], id="a quote inside an unquoted field"),
        pytest.param("a,b\n1,žluť 猫\u2028\n".encode(), [(2, ["1", "žluť 猫\u2028"])], id="unicode line separator"),
        pytest.param(b"a,b\n,\n", [(2, ["", ""])], id="empty fields"),
        pytest.param(b'a\n""\n\nx\n', [(2, [""]), (4, ["x"])], id="one column"),
        pytest.param(b"a,b\n", [], id="header only"),
        pytest.param(b"a,b\n1," + b"x" * 300_000 + b"\n", [(2, ["1", "x" * 300_000])], id="a long field"),
        pytest.param(b'a,b\n1,"' + b"x" * 300_000 + b'"\n', [(2, ["1", "x" * 300_000])], id="a long quoted field"),
    ],
)
def test_good_files_are_read(folder, data, rows):
    """Every row comes with its fields and the line on which it begins."""
    results = read(folder, data)
    assert [(row.line, list(row.values.values())) for row in results] == rows
    assert {row.path for row in results} <= {"x.csv"}


@pytest.mark.parametrize(
    ("data", "line", "kind", "words", "raw", "rows"),
    [
        pytest.param(
            b"a,b\n1,x,y\n2,z\n", 2, FailureKind.MALFORMED_ROW, "line 2 has 3 columns where 2", "1,x,y", [["2", "z"]],
            id="too many columns",
        ),
        pytest.param(
            b"a,b\n1\n2,z\n", 2, FailureKind.MALFORMED_ROW, "has 1 columns where 2", "1", [["2", "z"]],
            id="too few columns",
        ),
        pytest.param(
            b"a,b\n1,\xff\xfe\n2,z\n", 2, FailureKind.UNDECODABLE, "line 2, column b: bytes", "1,\\xff\\xfe",
            [["2", "z"]], id="undecodable",
        ),
        pytest.param(
            b'a,b\n1,"p\n\xff"\n2,z\n', 2, FailureKind.UNDECODABLE, "column b", '1,"p\n\\xff"', [["2", "z"]],
            id="undecodable in a field over lines",
        ),
        pytest.param(
            b"a,b\n1,x\0y\n2,z\n", 2, FailureKind.MALFORMED_ROW, "column b: a NUL", "1,x\0y", [["2", "z"]], id="NUL"
        ),
        pytest.param(
            b'a,b\n1,"x\n2,z\n3,w\n', 2, FailureKind.MALFORMED_ROW, "does not close before the file ends", '1,"x',
            [["2", "z"], ["3", "w"]], id="a stray quote does not swallow the file",
        ),
        pytest.param(
            b'a,b\n1,"x\n2,z\n3,"w"\n', 2, FailureKind.MALFORMED_ROW, "after a closing quote", '1,"x',
            [["2", "z"], ["3", "w"]], id="a stray quote that meets another",
        ),
        pytest.param(
            b'a,b\n1,"x"y\n2,z\n', 2, FailureKind.MALFORMED_ROW, "after a closing quote", '1,"x"y', [["2", "z"]],
            id="text after a closing quote",
        ),
        pytest.param(
            b"a,b\n1,x\ry\n2,z\n", 2, FailureKind.MALFORMED_ROW, "carriage return", "1,x\ry", [["2", "z"]],
            id="bare carriage return",
        ),
        pytest.param(
            b'a,b\n1,"\xff\n2,z\n', 2, FailureKind.MALFORMED_ROW, "also holds bytes that are not UTF-8", '1,"\\xff',
            [["2", "z"]], id="stray quote and bad bytes",
        ),
    ],
)  # fmt: skip
def test_a_bad_line_is_one_dead_letter(folder, data, line, kind, words, raw, rows):
    """A bad line says what is wrong and keeps its text; its neighbours are read."""
    results = read(folder, data)
    (letter,) = letters_of(results)
    assert (letter.line, letter.kind, letter.row) == (line, kind, raw)
    assert (letter.row_id, letter.stage) == (f"line:x.csv:{line}", Stage.READ)
    assert words in letter.reason
    assert rows_of(results) == rows


def test_a_record_over_lines_with_too_many_columns_gives_back_its_lines(folder):
    """Only the first line of a bad record over lines is lost."""
    results = read(folder, b'a,b\n1,"x\n2,y\nz",3\n4,z\n')
    assert [letter.line for letter in letters_of(results)] == [2]
    assert rows_of(results) == [["2", "y"], ['z"', "3"], ["4", "z"]]


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        pytest.param("MAX_RECORD_LINES", 50, id="lines"),
        pytest.param("MAX_RECORD_BYTES", 200, id="bytes"),
    ],
)
def test_a_quote_is_looked_for_within_bounds(folder, monkeypatch, limit, value):
    """A quote that stays open is given up after a bound, and the rows behind it are read."""
    monkeypatch.setattr(csv_rows, limit, value)
    results = read(folder, b'a,b\n1,"x\n' + b"2,abc\n" * 300 + b'3,"\n')
    assert [letter.line for letter in letters_of(results)] == [2, 303]
    assert "within" in letters_of(results)[0].reason
    assert len(rows_of(results)) == 300


def test_a_file_of_open_quotes_is_not_scanned_for_every_line(folder):
    """Each line here opens a quote that never closes; looking ahead from each of them would read megabytes."""
    body = b'a",",\n' * 3000
    asked = []
    take = input_lines.LineSource.take
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(input_lines.LineSource, "take", lambda lines: asked.append(1) or take(lines))
        results = read(folder, b"a,b\n" + body)
    assert [letter.line for letter in letters_of(results)] == list(range(2, 3002))
    assert len(asked) < 3000 * 120


def test_an_overlong_line_is_refused_without_being_kept(folder, monkeypatch):
    """A line beyond the bound becomes a dead letter with its beginning; the next line is read."""
    monkeypatch.setattr(input_lines, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(csv_rows, "MAX_LINE_BYTES", 1000)
    results = read(folder, b"a,b\n1," + b"x" * 600_000 + b"\n2,y\n")
    (letter,) = letters_of(results)
    assert "longer than" in letter.reason
    assert len(letter.row) == 1001
    assert [(row.line, row.values["b"]) for row in results if isinstance(row, RawRow)] == [(3, "y")]


def test_types_are_applied_and_errors_name_the_column(folder):
    """A typed column gives typed values; a value that does not fit takes only its own row."""
    data = b"id,score,when\n1,4.5,2024-05-31\n2,high,2024-06-01\n3,,\n"
    results = read(folder, data, types={"id": "integer", "score": "float", "when": "date"})
    assert [row.values["score"] for row in results if isinstance(row, RawRow)] == [4.5, None]
    (letter,) = letters_of(results)
    assert letter.kind is FailureKind.WRONG_TYPE
    assert letter.reason.startswith('line 3, column score: "high" is not a number')
    assert letter.row == {"id": "2", "score": "high", "when": "2024-06-01"}


@pytest.mark.parametrize(
    ("name", "options", "data"),
    [
        pytest.param("x.tsv", {}, b"a\tb\n1\tx,y\n", id="tsv"),
        pytest.param("x.csv", {"delimiter": ";"}, b"a;b\n1;x,y\n", id="semicolon"),
        pytest.param("x.csv", {"header": False, "columns": ["a", "b"]}, b'1,"x,y"\n', id="no header"),
        pytest.param("x.tsv.gz", {}, gzip.compress(b"a\tb\n1\tx,y\n"), id="gzip"),
        pytest.param("x.data", {"format": "csv"}, b'a,b\n1,"x,y"\n', id="format named"),
    ],
)
def test_dialects_are_read(folder, name, options, data):
    """Suffix and settings decide on delimiter, header and compression."""
    (row,) = read(folder, data, name, **options)
    assert row.values == {"a": "1", "b": "x,y"}


def test_a_cut_gzip_file_gives_what_can_be_read(folder):
    """All whole rows before the cut are read; the cut is one dead letter with its line."""
    noise = random.Random(1)
    lines = [f"{number},{noise.random()}\n" for number in range(50_000)]
    whole = gzip.compress(b"a,b\n" + "".join(lines).encode())
    results = read(folder, whole[: len(whole) // 2], "x.csv.gz")
    (letter,) = letters_of(results)
    rows = rows_of(results)
    assert results[-1] is letter
    assert letter.line == len(rows) + 2
    assert letter.kind is FailureKind.DAMAGED_FILE
    assert "cut or damaged" in letter.reason
    assert rows == [line.strip().split(",") for line in lines[: len(rows)]]
    assert len(rows) > 24_000


def test_damage_in_the_middle_of_a_gzip_file_is_a_dead_letter(folder):
    """Broken bytes end the file instead of the job."""
    noise = random.Random(1)
    data = bytearray(gzip.compress(b"a\n" + b"".join(f"{noise.random()}\n".encode() for _ in range(50_000))))
    data[len(data) // 2 : len(data) // 2 + 50] = b"\xff" * 50
    results = read(folder, bytes(data), "x.csv.gz")
    assert "cut or damaged" in letters_of(results)[-1].reason


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"a,a\n", 'names "a" twice', id="duplicate name"),
        pytest.param(b"a,,c\n", "column 2 has no name", id="name missing"),
        pytest.param(b"\xff\xfea\0", "UTF-16", id="UTF-16"),
        pytest.param(b"a,\xff\n", "header can't be read", id="undecodable"),
        pytest.param(b"a,b\r1,2\r", "carriage return", id="old Mac line ends"),
        pytest.param(b'"a\nb",c\n', "line break", id="line break in a name"),
        pytest.param(b"", "is empty", id="empty file"),
    ],
)
def test_a_bad_header_stops_before_launch(folder, data, words):
    """A header that gives no columns is an error of the input."""
    with pytest.raises(InputError, match=words):
        read(folder, data)


def test_a_gzip_file_cut_in_its_header_stops_before_launch(folder):
    """Without a header line there is nothing to read."""
    with pytest.raises(InputError, match="cut or damaged"):
        read(folder, gzip.compress(b"a,b\n1,2\n")[:12], "x.csv.gz")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ['"', "a\nb", "\r\n", ",", "\r", "\ufeff", "\u2028", '""', "\n\n"]
)


@settings(max_examples=60)
@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(TEXT, min_size=width, max_size=width), max_size=6)))
def test_what_csv_writers_write_is_read_back(folder, rows):
    """Whatever Python's csv module writes comes back equal, with every record's first line."""
    width = len(rows[0]) if rows else 1
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([f"c{number}" for number in range(width)])
    starts = []
    for row in rows:
        starts.append(out.getvalue().count("\n") + 1)
        writer.writerow(row)
    results = read(folder, out.getvalue().encode())
    assert letters_of(results) == []
    assert [list(row.values.values()) for row in results] == rows
    assert [row.line for row in results] == starts


@settings(max_examples=150)
@given(
    st.lists(
        st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b'"a"', b"\xff", b"\0", b"x,y\n", b"\xc3\xa9"]), max_size=40
    )
)
def test_every_line_of_arbitrary_bytes_is_accounted_for(folder, parts):
    """No bytes raise, and each line that is not blank belongs to exactly one row or dead letter."""
    body = b"".join(parts)
    results = read(folder, b"a,b\n" + body)
    lines = body.split(b"\n")
    starts = [row.line - 2 for row in results]
    assert starts == sorted(set(starts))
    covered = []
    for row, start in zip(results, starts, strict=True):
        covered += range(start, start + _span(row))
    assert len(covered) == len(set(covered))
    blank = {number for number, line in enumerate(lines) if not line.strip(b"\r")}
    assert {number for number in range(len(lines)) if number not in blank} <= set(covered)


def _span(row):
    """Count the physical lines a result stands for."""
    text = "".join(row.values.values()) if isinstance(row, RawRow) else row.row
    return text.count("\n") + 1


def test_memory_is_flat(folder):
    """A file larger than the buffers is read in less memory than it is long."""
    path = folder / "big.csv"
    path.write_bytes(b"a,b\n" + (b"1," + b"long " * 60 + b"\n") * 20_000)
    job_input = InputSettings(path=str(path))
    files = expand(job_input)
    schema = input_schema(files, job_input)
    tracemalloc.start()
    count = sum(1 for _ in read_rows(files[0], job_input, schema))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 2_000_000
