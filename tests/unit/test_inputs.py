"""The input as a whole: which files, which columns, which pieces."""

import gzip
import os
import pickle

import pyarrow as pa
import pytest

from transforms.records.errors import InputError
from transforms.records.settings import InputSettings
from transforms.storage.inputs import expand, input_schema, read_unit, work_units


def write(folder, **files):
    """Write text files named with _ for a dot."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_globs_are_sorted_and_files_come_once(tmp_path):
    """Patterns keep their order, matches are sorted, folders and repeats are passed over."""
    write(tmp_path, b_csv="x\n", a_csv="x\n", c_csv="x\n")
    (tmp_path / "d.csv").mkdir()
    files = expand(InputSettings(path=[str(tmp_path / "c.csv"), str(tmp_path / "*.csv")]), str(tmp_path))
    assert [file.path for file in files] == ["c.csv", "a.csv", "b.csv"]
    assert [file.location for file in files] == [str(tmp_path / name) for name in ("c.csv", "a.csv", "b.csv")]


def test_a_recursive_glob_goes_into_folders(tmp_path):
    """Two stars match any depth."""
    (tmp_path / "p" / "q").mkdir(parents=True)
    (tmp_path / "p" / "q" / "a.jsonl").write_text("{}")
    (file,) = expand(InputSettings(path=str(tmp_path / "**" / "*.jsonl")), str(tmp_path))
    assert file.path == "p/q/a.jsonl"


def test_a_file_named_like_a_pattern_is_itself(tmp_path):
    """Brackets in a file's name are no pattern when that file is there."""
    (tmp_path / "a[1].csv").write_text("x\n")
    assert len(expand(InputSettings(path=str(tmp_path / "a[1].csv")))) == 1


def test_files_outside_the_folder_keep_their_path(tmp_path):
    """Only what lies in the job's folder is shown relative to it."""
    write(tmp_path, a_csv="x\n")
    (tmp_path / "job").mkdir()
    (file,) = expand(InputSettings(path=str(tmp_path / "a.csv")), str(tmp_path / "job"))
    assert file.path == str(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "path", "words"),
    [
        pytest.param("a.csv", b"x", "*.parquet", "no file matches", id="empty glob"),
        pytest.param("a.csv", b"x", "b.csv", "no such file", id="no such file"),
        pytest.param("d/a.csv", b"x", "*", "only folders match", id="only folders"),
        pytest.param("d/a.csv", b"x", "d", r"is a folder; name its files, such as d/\*.csv", id="folder"),
        pytest.param("a.txt", b"x", "a.txt", "suffix tells no format", id="unknown suffix"),
        pytest.param("a.csv", gzip.compress(b"x"), "a.csv", "holds gzip data; name it a.csv.gz", id="hidden gzip"),
        pytest.param("a.csv.gz", b"x,y", "a.csv.gz", "holds no gzip data", id="false gzip"),
        pytest.param("a.parquet", b"PAR1", "a.parquet", "not a whole Parquet file", id="broken parquet"),
        pytest.param("a.parquet.gz", b"x", "a.parquet.gz", "unpack it", id="parquet in gzip"),
    ],
)
def test_what_cannot_be_read_stops_before_launch(tmp_path, name, content, path, words):
    """One sentence names the file and the cure."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        expand(InputSettings(path=str(tmp_path / path)), str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_stops_before_launch(tmp_path):
    """The mode of the file is the cure."""
    write(tmp_path, a_csv="x\n")
    (tmp_path / "a.csv").chmod(0)
    with pytest.raises(InputError, match="no permission"):
        expand(InputSettings(path=str(tmp_path / "a.csv")))


def test_an_empty_list_and_foreign_stores_are_refused():
    """There must be a file on a disk or in a bucket."""
    with pytest.raises(InputError, match="empty list"):
        expand(InputSettings(path=[]))
    with pytest.raises(InputError, match="s3:// can't be read; name local files, or gs:// objects"):
        expand(InputSettings(path="s3://bucket/a.csv"))


def test_every_column_type_has_an_arrow_type(tmp_path):
    """Declared types become Arrow fields in the header's order."""
    types = {
        "integer": pa.int64(),
        "float": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "decimal": pa.decimal128(38, 9),
        "json": pa.string(),
        "string": pa.string(),
    }
    write(tmp_path, a_csv=",".join(types) + "\n")
    job_input = InputSettings(path=str(tmp_path / "a.csv"), types={name: name for name in types})
    schema = input_schema(expand(job_input), job_input)
    assert schema.arrow == pa.schema(types)
    assert schema.names == list(types)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        pytest.param("a,b\n", "a,c\n", '"b" is only in the first, "c" is only in the second', id="other column"),
        pytest.param("a,b\n", "b,a\n", "the same columns in another order", id="other order"),
    ],
)
def test_headers_must_agree(tmp_path, first, second, words):
    """Both files and the difference are named."""
    write(tmp_path, x_csv=first, y_csv=second)
    job_input = InputSettings(path=str(tmp_path / "*.csv"))
    with pytest.raises(InputError, match=f"x.csv and y.csv have different headers: {words}"):
        input_schema(expand(job_input, str(tmp_path)), job_input)


def test_an_empty_part_of_an_export_does_not_matter(tmp_path):
    """A file without any line has no rows and no say in the header."""
    write(tmp_path, x_csv="", y_csv="a,b\n1,2\n")
    job_input = InputSettings(path=str(tmp_path / "*.csv"))
    files = expand(job_input)
    schema = input_schema(files, job_input)
    rows = [row for unit in work_units(files) for row in read_unit(unit, job_input, schema)]
    assert [row.values for row in rows] == [{"a": "1", "b": "2"}]


def test_types_must_name_columns(tmp_path):
    """A type for a column that is not there is a slip."""
    write(tmp_path, a_csv="id,text\n")
    job_input = InputSettings(path=str(tmp_path / "a.csv"), types={"idd": "integer"})
    with pytest.raises(InputError, match='"idd", which is no column; there are: id, text'):
        input_schema(expand(job_input), job_input)


def test_formats_do_not_mix(tmp_path):
    """One job reads one format."""
    write(tmp_path, a_csv="a\n", b_jsonl="{}\n")
    job_input = InputSettings(path=str(tmp_path / "*"))
    with pytest.raises(InputError, match="mixes csv and jsonl"):
        input_schema(expand(job_input), job_input)


def test_files_schema_and_units_can_travel(tmp_path):
    """What a stage holds survives pickling."""
    write(tmp_path, a_jsonl='{"a": {"b": [1]}}\n')
    job_input = InputSettings(path=str(tmp_path / "a.jsonl"))
    files = expand(job_input)
    carried = (input_schema(files, job_input), work_units(files))
    assert pickle.loads(pickle.dumps(carried)) == carried  # noqa: S301
