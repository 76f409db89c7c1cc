"""Earlier calls as a forecast's basis: what can't be read has nothing to tell, and stops nothing."""

from pathlib import Path

from pipelines.earlier_calls import _row_groups
from tests.unit.cli_outputs import make_call
from transforms.storage.arrow_types import CALLS
from transforms.storage.audit_rows import call_row
from transforms.storage.tables import ParquetWriter


def test_a_damaged_file_of_an_earlier_run_tells_nothing(tmp_path: Path) -> None:
    """A run needs nothing of it: cut files, other files and absent ones are passed over."""
    path = tmp_path / "part.parquet"
    with ParquetWriter(str(path), CALLS) as writer:
        writer.extend([call_row(make_call(0, "a"))])
    assert [table.num_rows for table in _row_groups(str(path))] == [1]
    path.write_bytes(path.read_bytes()[:200])
    assert list(_row_groups(str(path))) == []
    assert list(_row_groups(str(tmp_path / "none.parquet"))) == []
