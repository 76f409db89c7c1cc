"""ReadRows through the runner."""

import gzip

from tests.stages.harness import run_stage
from transforms.read_rows import ReadRows
from transforms.records.failure import FailureKind, Stage
from transforms.records.row import RawRow
from transforms.records.settings import InputSettings
from transforms.storage.inputs import expand, input_schema


def read(folder, **settings):
    """Run the stage over a job's input."""
    found = InputSettings(**settings)
    files = expand(found, str(folder))
    return run_stage(lambda root: root | ReadRows(found, files, input_schema(files, found)))


def test_rows_bad_lines_and_positions_come_apart(tmp_path):
    """Each readable line is a typed row, each bad one a dead letter, and every one of both has its position."""
    path = tmp_path / "a.csv"
    path.write_text("id,n\nx,1\ny,2,3\nz,many\n")
    run = read(tmp_path, path=str(path), types={"n": "integer"})
    assert run["rows"] == [RawRow({"id": "x", "n": 1}, "a.csv", 2)]
    assert sorted((f.kind, f.stage, f.path, f.line) for f in run["failures"]) == [
        (FailureKind.MALFORMED_ROW, Stage.READ, "a.csv", 3),
        (FailureKind.WRONG_TYPE, Stage.READ, "a.csv", 4),
    ]
    assert sorted(run["positions"]) == [("a.csv", 2), ("a.csv", 3), ("a.csv", 4)]
    assert (run.counters["ReadRows/rows_read"], run.counters["ReadRows/lines_failed"]) == (1, 2)


def test_several_files_are_read_each_once(tmp_path):
    """A glob's files, compressed or not, give their rows with their own names and lines."""
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"id": 3}\n'))
    run = read(tmp_path, path=str(tmp_path / "*.jsonl*"))
    assert sorted((row.path, row.line, row.values["id"]) for row in run["rows"]) == [
        ("a.jsonl", 1, 1), ("a.jsonl", 2, 2), ("b.jsonl.gz", 1, 3),
    ]  # fmt: skip
    assert run["failures"] == []


def test_a_file_without_rows_gives_nothing(tmp_path):
    """A header alone is no row."""
    (tmp_path / "a.csv").write_text("id,n\n")
    run = read(tmp_path, path=str(tmp_path / "a.csv"))
    assert run.outputs == {"rows": [], "failures": [], "positions": []}
