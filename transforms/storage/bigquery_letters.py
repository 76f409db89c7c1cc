"""A run's dead letters as a table, and the rows that BigQuery did not take, which join them there.

Such rows are answered and in the run's files: nothing is lost, so they are no dead letters of the run. In BigQuery they
are, so that there, too, every row is in exactly one table; on the disk they are in `runs/<run_id>/bigquery/`.
"""

from typing import Any

import orjson

from transforms.storage.bigquery_schema import DEAD_LETTERS
from transforms.storage.bigquery_stage import Refused
from transforms.storage.objects import exists, join, list_files, open_read, remove, write_atomic
from transforms.storage.run_folder import RunFolder
from transforms.storage.scratch import scratch_path
from transforms.storage.tables import ParquetWriter, json_default


def write_letters(folder: RunFolder, refused: dict[str, list[Refused]], row_id: str) -> tuple[str, int]:
    """Write the run's dead letters, and what BigQuery refused, as one Parquet file down here.

    Args:
        folder: the run's.
        refused: what was not taken, by the table's full name.
        row_id: the enriched column that says which row it is.

    Returns:
        The file's path, and the rows in it.
    """
    path = scratch_path("dead_letters.parquet")
    with ParquetWriter(path, DEAD_LETTERS) as table:
        for file in list_files(folder.dead_letters, ".jsonl"):
            with open_read(file) as lines:
                for line in lines:
                    table.append(_letter(orjson.loads(line)))
        for name, rows in refused.items():
            table.extend(_refused_letter(folder.run_id, name, one, row_id) for one in rows)
    return path, table.row_count


def _letter(found: dict[str, Any]) -> dict[str, Any]:
    row = found["row"]
    text = row if isinstance(row, str) else orjson.dumps(row).decode()
    return {name: found.get(name) for name in DEAD_LETTERS.names} | {"row": text}


def _refused_letter(run_id: str, table: str, refused: Refused, row_id: str) -> dict[str, Any]:
    row = refused.row
    return dict.fromkeys(DEAD_LETTERS.names) | {
        "row_id": row.get(row_id, row.get("row_id")),
        "run_id": run_id,
        "stage": "bigquery",
        "kind": "refused",
        "reason": f"{table}: {refused.reason}",
        "attempts": 0,
        "retryable": False,
        "request_id": row.get("request_id"),
        "call_id": row.get("call_id"),
        "row": orjson.dumps(row, default=json_default).decode(),
    }


def keep_refused(folder: RunFolder, refused: dict[str, list[Refused]]) -> None:
    """Write what BigQuery did not take beside the run's files, a JSON object a line, by the table's full name."""
    for name, rows in refused.items():
        lines = [{"reason": one.reason, "retryable": False, "row": one.row} for one in rows]
        path = _refused_file(folder, name)
        if not lines:
            remove(path)  # an earlier try may have left one
        else:
            data = b"".join(
                orjson.dumps(line, default=json_default, option=orjson.OPT_APPEND_NEWLINE) for line in lines
            )
            write_atomic(path, data)


def count_letters(folder: RunFolder) -> int:
    """Return the number of the run's own dead letters."""
    return sum(_line_count(file) for file in list_files(folder.dead_letters, ".jsonl"))


def count_refused(folder: RunFolder, table: str) -> int:
    """Return how many of a table's rows BigQuery did not take."""
    return _line_count(_refused_file(folder, table))


def _line_count(path: str) -> int:
    if not exists(path):
        return 0
    with open_read(path) as lines:
        return sum(1 for _ in lines)


def _refused_file(folder: RunFolder, table: str) -> str:
    return join(folder.path, "bigquery", f"refused-{table.rpartition('.')[2]}.jsonl")
