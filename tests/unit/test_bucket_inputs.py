"""Input in a bucket: the same rows, line numbers and errors as from a disk."""

import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.records.errors import InputError
from transforms.records.failure import DeadLetter
from transforms.records.settings import InputSettings
from transforms.storage import gcs
from transforms.storage.inputs import expand, input_schema, read_unit, work_units

_CSV = b"id,text\n" + b"".join(b"%d,text %d\n" % (number, number) for number in range(500))
_TABLE = pa.table({"id": list(range(500)), "text": [f"text {number}" for number in range(500)]})


def _parquet():
    file = io.BytesIO()
    pq.write_table(_TABLE, file, row_group_size=100)
    return file.getvalue()


def _rows(settings):
    files = expand(settings, "/home/job")
    schema = input_schema(files, settings)
    return [row for unit in work_units(files) for row in read_unit(unit, settings, schema)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("in/a.csv", _CSV, id="csv"),
        pytest.param("in/a.csv.gz", gzip.compress(_CSV), id="csv in gzip"),
        pytest.param(
            "in/a.jsonl", b"".join(b'{"id": %d, "text": "text %d"}\n' % (n, n) for n in range(500)), id="jsonl"
        ),
        pytest.param("in/a.parquet", _parquet(), id="parquet"),
    ],
)
def test_every_format_is_read(bucket, name, data):
    """All rows, in order, with the object's own path."""
    bucket.store("bucket", name, data)
    rows = _rows(InputSettings(path=f"gs://bucket/{name}", types={} if "parquet" in name else {"id": "integer"}))
    assert [row.values for row in rows] == _TABLE.to_pylist()
    assert {row.path for row in rows} == {f"gs://bucket/{name}"}


def test_globs_name_objects_across_folders(bucket):
    """By name, each once; other buckets' and other folders' are not there."""
    for name in ("in/b.csv", "in/a.csv", "in/deep/c.csv", "other/d.csv", "in/notes.txt"):
        bucket.store("bucket", name, b"id\n1\n")
    found = expand(InputSettings(path=["gs://bucket/in/*.csv", "gs://bucket/in/**.csv"]))
    assert [file.path.removeprefix("gs://bucket/") for file in found] == ["in/a.csv", "in/b.csv", "in/deep/c.csv"]
    assert [file.size for file in found] == [5, 5, 5]


@pytest.mark.parametrize(
    ("path", "refusal", "words"),
    [
        pytest.param(
            "gs://bucket/none.csv", None, "gs://bucket/none.csv: no such file; correct input.path", id="no object"
        ),
        pytest.param("gs://bucket/in/*.csv", None, "no object matches; correct input.path", id="empty glob"),
        pytest.param("gs://nobodys/a.csv", None, "the bucket nobodys does not exist", id="no bucket"),
        pytest.param("gs://nobodys/*.csv", None, "the bucket nobodys does not exist", id="no bucket for a glob"),
        pytest.param("gs://bucket/a.csv", 403, "grant this account", id="no right"),
    ],
)
def test_what_cannot_be_read_stops_before_anything_is_spent(bucket, path, refusal, words):
    """One sentence that names the object and the cure."""
    bucket.refusal = refusal
    with pytest.raises(InputError, match=words):
        expand(InputSettings(path=path))


def test_a_bucket_that_fails_midway_is_no_damaged_file(bucket):
    """The bundle fails and is tried again: rows are not given up because a bucket was away."""
    bucket.store("bucket", "a.parquet", _parquet())
    settings = InputSettings(path="gs://bucket/a.parquet")
    files = expand(settings)
    schema = input_schema(files, settings)
    bucket.refusal = 400
    with pytest.raises(gcs.StorageError):
        list(read_unit(work_units(files)[0], settings, schema))


def test_a_damaged_object_costs_what_is_damaged(bucket):
    """A cut gzip file gives its rows up to there, and one dead letter."""
    bucket.store("bucket", "a.csv.gz", gzip.compress(_CSV)[:-200])
    rows = _rows(InputSettings(path="gs://bucket/a.csv.gz"))
    assert isinstance(rows[-1], DeadLetter)
    assert not any(isinstance(row, DeadLetter) for row in rows[:-1])
