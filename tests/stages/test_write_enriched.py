"""WriteEnriched through the runner."""

from decimal import Decimal

import apache_beam as beam
import pyarrow as pa
import pytest

from tests.stages.harness import run_stage
from tests.stages.parts_read import read_parts
from transforms.write_enriched import WriteEnriched

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("cost", pa.decimal128(38, 18))])


def write(folder, rows, file_format):
    """Run the stage; return (folder, path) of each part."""
    return run_stage(lambda root: root | beam.Create(rows) | WriteEnriched(folder, SCHEMA, file_format))["main"]


@pytest.mark.parametrize(("file_format", "cost"), [("parquet", Decimal("0.25")), ("jsonl", "0.25")])
def test_every_row_is_in_one_part(tmp_path, file_format, cost):
    """With its values; nulls stay nulls."""
    rows = [{"id": n, "text": None if n == 3 else f"t{n}", "cost": Decimal("0.25")} for n in range(20)]
    given = write(str(tmp_path / "e"), rows, file_format)
    found = sorted(read_parts(str(tmp_path / "e"), given), key=lambda row: row["id"])
    assert [(row["id"], row["text"]) for row in found] == [(row["id"], row["text"]) for row in rows]
    assert {str(row["cost"]).rstrip("0") for row in found} == {str(cost)}


@pytest.mark.parametrize(
    ("file_format", "short"),
    [("parquet", {"id": 1, "text": None, "cost": None}), ("jsonl", {"id": 1})],
)
def test_a_column_that_a_row_lacks_is_null_in_parquet(tmp_path, file_format, short):
    """JSONL input may lack keys; a table has every column, JSON lines have the row as it is."""
    full = {"id": 2, "text": "t", "cost": None}
    given = write(str(tmp_path / "e"), [{"id": 1}, full], file_format)
    assert sorted(read_parts(str(tmp_path / "e"), given), key=lambda row: row["id"]) == [short, full]


def test_no_rows_leave_no_part(tmp_path):
    """Whoever closes the run writes an empty file where one is wanted."""
    assert write(str(tmp_path / "e"), [], "parquet") == []
    assert not (tmp_path / "e").exists()
