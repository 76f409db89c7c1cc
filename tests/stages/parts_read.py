"""What the parts that a Write stage left hold."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq


def read_parts(folder: str, given: list[Any]) -> list[dict[str, Any]]:
    """Return the rows of all parts; each part the stage gave is there, complete, and no other."""
    assert {place for place, _ in given} <= {folder}
    paths = sorted(path for _, path in given)
    assert sorted(str(path) for path in Path(folder).rglob("*") if path.is_file()) == paths
    return [row for path in paths for row in _read(path)]


def _read(path: str) -> list[dict[str, Any]]:
    if path.endswith(".jsonl"):
        return [orjson.loads(line) for line in Path(path).read_bytes().splitlines()]
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
