"""Parquet files: row groups, values Python can't hold, damage."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.records.errors import InputError
from transforms.records.failure import DeadLetter, FailureKind
from transforms.records.settings import InputSettings
from transforms.storage import inputs
from transforms.storage.inputs import expand, input_schema, read_rows, read_unit, work_units
from transforms.storage.parquet_rows import _batch_rows


def load(path, table, **options):
    """Write a table; give its settings, files and schema."""
    pq.write_table(table, path, **options)
    job_input = InputSettings(path=str(path))
    files = expand(job_input, str(path.parent))
    return job_input, files, input_schema(files, job_input)


def test_values_come_as_python_objects(tmp_path):
    """Every type is itself; nanoseconds and dictionaries are made plain, in values and schema alike."""
    table = pa.table(
        {
            "i": pa.array([1, None]),
            "s": pa.array(["x", "y"]).dictionary_encode(),
            "t": pa.array([1_000_000_001, None], pa.timestamp("ns", tz="UTC")),
            "d": pa.array([Decimal("1.50"), None]),
            "n": pa.array([{"a": [1]}, None], pa.struct([("a", pa.list_(pa.int64()))])),
            "w": pa.array([1_000, None], pa.time64("ns")),
            "p": pa.array([1_000, None], pa.duration("ns")),
        }
    )
    job_input, files, schema = load(tmp_path / "x.parquet", table)
    first, second = read_rows(files[0], job_input, schema)
    assert first.values == {
        "i": 1,
        "s": "x",
        "t": dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC),
        "d": Decimal("1.50"),
        "n": {"a": [1]},
        "w": dt.time(0, 0, 0, 1),
        "p": dt.timedelta(microseconds=1),
    }
    assert (first.line, second.line, first.path) == (1, 2, "x.parquet")
    assert schema.arrow.field("s").type == pa.string()
    assert pa.Table.from_pylist([first.values, second.values], schema=schema.arrow).num_rows == 2


def test_row_groups_are_read_on_their_own(tmp_path, monkeypatch):
    """Pieces cover every row group once, with true row numbers."""
    monkeypatch.setattr(inputs, "UNIT_ROWS", 25)
    table = pa.table({"i": list(range(95))})
    job_input, files, schema = load(tmp_path / "x.parquet", table, row_group_size=10)
    units = work_units(files)
    assert [(unit.start, unit.stop) for unit in units] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    rows = [row for unit in units for row in read_unit(unit, job_input, schema)]
    assert [(row.line, row.values["i"]) for row in rows] == [(number + 1, number) for number in range(95)]


def test_an_empty_file_has_no_rows(tmp_path):
    """A table without rows is read as such."""
    job_input, files, schema = load(tmp_path / "x.parquet", pa.table({"i": pa.array([], pa.int64())}))
    assert [row for unit in work_units(files) for row in read_unit(unit, job_input, schema)] == []


@pytest.mark.parametrize(
    ("bad", "kind", "shown"),
    [
        pytest.param(pa.array([0, 2**62], pa.timestamp("us")), FailureKind.WRONG_TYPE, None, id="beyond year 9999"),
        pytest.param(
            pa.StringArray.from_buffers(
                2, pa.array([b"ab", b"\xffz"], pa.binary()).buffers()[1], pa.py_buffer(b"ab\xffz")
            ),
            FailureKind.UNDECODABLE,
            "\\xffz",
            id="text that is not UTF-8",
        ),
    ],
)
def test_a_value_python_cannot_hold_takes_only_its_row(tmp_path, bad, kind, shown):
    """The other rows of the batch are read."""
    job_input, files, schema = load(tmp_path / "x.parquet", pa.table({"i": [1, 2], "v": bad}))
    good, letter = read_rows(files[0], job_input, schema)
    assert good.values["i"] == 1
    assert isinstance(letter, DeadLetter)
    assert (letter.kind, letter.line, letter.row["i"]) == (kind, 2, 2)
    assert "row 2, column v" in letter.reason
    assert isinstance(letter.row["v"], str)
    assert shown is None or letter.row["v"] == shown


def test_a_damaged_row_group_is_one_dead_letter(tmp_path):
    """The rows of sound groups are read; the damaged one says which rows are lost."""
    path = tmp_path / "x.parquet"
    table = pa.table({"i": [f"{number:09d}" for number in range(3000)]})
    job_input, files, schema = load(path, table, row_group_size=1000, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start + 40 : start + column.total_compressed_size] = b"\xff" * (column.total_compressed_size - 40)
    path.write_bytes(bytes(data))
    results = list(read_rows(files[0], job_input, schema))
    (letter,) = [one for one in results if isinstance(one, DeadLetter)]
    assert letter.kind is FailureKind.DAMAGED_FILE
    assert letter.reason.startswith("rows 1001 to 2000: row group 1 is damaged")
    assert "1000 row(s) are lost" in letter.reason
    assert len(results) == 2001


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(pa.timestamp("us", tz="Mars/Base"), id="column"),
        pytest.param(pa.list_(pa.timestamp("ns", tz="Mars/Base")), id="list"),
        pytest.param(pa.struct([("a", pa.timestamp("us", tz="Mars/Base"))]), id="struct"),
        pytest.param(pa.map_(pa.string(), pa.timestamp("us", tz="Mars/Base")), id="map"),
    ],
)
def test_an_unknown_time_zone_stops_before_launch(tmp_path, kind):
    """The column and the zone are named, at whatever depth it is."""
    with pytest.raises(InputError, match='the column "t" is in the time zone "Mars/Base"'):
        load(tmp_path / "x.parquet", pa.table({"i": [1], "t": pa.array([None], kind)}))


def test_known_time_zones_are_read(tmp_path):
    """Names and offsets."""
    zones = ("UTC", "Europe/Vienna", "+02:00")
    table = pa.table({zone: pa.array([0], pa.timestamp("us", tz=zone)) for zone in zones})
    job_input, files, schema = load(tmp_path / "x.parquet", table)
    (row,) = read_rows(files[0], job_input, schema)
    assert {value.timestamp() for value in row.values.values()} == {0.0}


@pytest.mark.parametrize("nested", [False, True])
def test_any_failure_to_make_python_values_is_a_dead_letter(nested):
    """Whatever Arrow raises, even a KeyError, or for text inside a list, takes its row and not the run."""
    text = pa.StringArray.from_buffers(
        2, pa.array([b"ab", b"\xffz"], pa.binary()).buffers()[1], pa.py_buffer(b"ab\xffz")
    )
    zoned = pa.array([None, 0], pa.timestamp("us", tz="Mars/Base"))
    bad = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), text) if nested else zoned
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2]), bad], names=["i", "v"])
    good, letter = _batch_rows(batch, "x.parquet", 1)
    assert good.values["i"] == 1
    assert letter.kind is (FailureKind.UNDECODABLE if nested else FailureKind.WRONG_TYPE)
    assert (letter.line, letter.row["i"]) == (2, 2)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        pytest.param({"i": ["x"]}, '"i" is int64 in the first and string in the second', id="types"),
        pytest.param({"i": [1], "j": [1]}, '"j" is only in the second', id="more columns"),
        pytest.param({"j": [1]}, '"i" is only in the first', id="other columns"),
    ],
)
def test_files_that_disagree_stop_before_launch(tmp_path, other, words):
    """Both files and the difference are named."""
    pq.write_table(pa.table({"i": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table(other), tmp_path / "b.parquet")
    job_input = InputSettings(path=str(tmp_path / "*.parquet"))
    with pytest.raises(InputError, match=words) as caught:
        input_schema(expand(job_input, str(tmp_path)), job_input)
    assert "a.parquet and b.parquet" in str(caught.value)


def test_a_column_name_twice_stops_before_launch(tmp_path):
    """Two columns can't share a place in a row."""
    with pytest.raises(InputError, match='two columns named "i"'):
        load(tmp_path / "x.parquet", pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["i", "i"]))


def test_types_are_refused_for_parquet(tmp_path):
    """Parquet knows its types; a declared one would be ignored."""
    pq.write_table(pa.table({"i": [1]}), tmp_path / "a.parquet")
    job_input = InputSettings(path=str(tmp_path / "a.parquet"), types={"i": "string"})
    with pytest.raises(InputError, match="remove it"):
        input_schema(expand(job_input), job_input)
