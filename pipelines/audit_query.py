"""Questions to the audit tables of all runs of an output, answered by DuckDB over their Parquet files.

A row is looked up by its ids, whose Bloom filters (`transforms.storage.tables`) let DuckDB pass over every row group
that can't hold it: one row among a million calls takes a few hundredths of a second. Loads no Arrow, which alone would
take longer than that. A run that was killed and is not sealed has no tables: `OpenRuns` tells of it from the ledger.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from pipelines.duck_session import DuckSession
from pipelines.explain_open_runs import OpenRuns

_EXCHANGE_COLUMNS = (
    "batch_id",
    "run_id",
    "call_index",
    "status",
    "outcome",
    "http_status",
    "provider_request_id",
    "started_at",
    "latency_ms",
    "error_json",
    "cost_reason",
)


class AuditQuery(DuckSession):
    """The audit tables of one output. Use it in a `with`.

    Args:
        output: the output folder.
        open_runs: runs that are under way or were killed, which have no tables yet; None leaves them out.
    """

    def __init__(self, output: str, open_runs: OpenRuns | None = None) -> None:
        super().__init__()
        self._runs = Path(output) / "runs"
        self._open = open_runs or OpenRuns(output, ())

    def files(self, table: str, run_id: str = "*") -> list[str]:
        """Return the table's files, of all runs or of one."""
        return sorted(str(path) for path in self._runs.glob(f"{run_id}/audit/{table}/*.parquet"))

    def row_ends(self, row_id: str) -> list[dict[str, Any]]:
        """Return the rows of table `rows` with this row_id, oldest run first; each also with its `filename`."""
        return self._select("rows", "row_id = ?", [row_id], "run_id")

    def calls_for(self, root_request_id: str) -> list[dict[str, Any]]:
        """Return all calls made for a request, its repair included, in the order they were sent."""
        found = self._select("calls", "root_request_id = ?", [root_request_id], "started_at, call_index")
        found = _with(found, self._open.calls_for(root_request_id), "call_id")
        return sorted(found, key=lambda call: (call["started_at"], call["call_index"]))

    def batches(self, batch_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the batches of these ids, in the order they were taken up; of a provider's batch a row per run."""
        found = self._select("batches", _one_of("batch_id", batch_ids), list(batch_ids), "submitted_at, run_id")
        found = _with(found, self._open.batches(batch_ids), "batch_id", "run_id")
        return sorted(found, key=lambda batch: (batch["submitted_at"], batch["run_id"]))

    def exchanges(self, batch_ids: Sequence[str], run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the HTTP exchanges that these runs made for these batches, in the order of each batch; no payloads."""
        found: list[dict[str, Any]] = []
        files = [path for run_id in run_ids for path in self.files("calls", run_id)]
        if files and batch_ids:
            query = (
                f"SELECT {', '.join(_EXCHANGE_COLUMNS)} FROM read_parquet(?, union_by_name=true) "  # noqa: S608 - our own words
                f"WHERE call_type = 'HTTP' AND {_one_of('batch_id', batch_ids)}"
            )
            found = self._rows(query, [files, *batch_ids])
        found = _with(found, self._open.exchanges(batch_ids), "batch_id", "call_index")
        return sorted(found, key=lambda call: (call["batch_id"], call["call_index"], call["started_at"]))

    def places(self, request_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the memberships of these requests: batch_id, ordinal, custom_id, request_id."""
        found = self._select("batch_members", _one_of("request_id", request_ids), list(request_ids), "batch_id")
        return _with(found, self._open.places(request_ids), "batch_id", "request_id")

    def sharers(self, request_id: str, run_id: str) -> int:
        """Return how many rows of a run asked this request."""
        files = self.files("rows", run_id)
        if not files:
            return 0
        query = "SELECT count(*) FROM read_parquet(?, union_by_name=true) WHERE request_id = ?"
        return int(self._database.execute(query, [files, request_id]).fetchall()[0][0])

    def example(self, run_id: str) -> str | None:
        """Return a row of a run that is worth explaining: one that failed after calls, else an enriched one."""
        files = self.files("rows", run_id)
        if not files:
            return None
        query = (
            "SELECT row_id FROM read_parquet(?, union_by_name=true) "
            "ORDER BY call_id IS NULL, outcome = 'enriched', length(row_id), row_id LIMIT 1"
        )
        found = self._database.execute(query, [files]).fetchall()
        return str(found[0][0]) if found else None

    def near(self, row_id: str, limit: int = 5) -> list[str]:
        """Return known row ids that look like this one, the most alike first."""
        files = self.files("rows")
        if not files:
            return []
        query = (
            "SELECT row_id FROM (SELECT DISTINCT row_id FROM read_parquet(?, union_by_name=true)) "
            "ORDER BY starts_with(row_id, ?) DESC, jaro_winkler_similarity(row_id, ?) DESC, row_id LIMIT ?"
        )
        return [row[0] for row in self._database.execute(query, [files, row_id, row_id, limit]).fetchall()]

    def enriched(self, files: Sequence[str], request_column: str, request_id: str) -> list[dict[str, Any]]:
        """Return the enriched rows of one request from Parquet files; one file may lack the column."""
        query = f'SELECT * FROM read_parquet(?, union_by_name=true) WHERE "{request_column}" = ?'  # noqa: S608 - checked name
        return self._rows(query, [list(files), request_id])

    def places_in_files(self, files: Sequence[str], request_column: str, request_id: str) -> list[tuple[str, int]]:
        """Return (file, row from 1) of each row that `enriched` returns, in its order."""
        query = (
            f'SELECT f, n + 1 FROM (SELECT filename AS f, file_row_number AS n, "{request_column}" AS r '  # noqa: S608
            "FROM read_parquet(?, union_by_name=true, filename=true, file_row_number=true)) WHERE r = ?"
        )
        try:
            return [
                (str(path), int(row))
                for path, row in self._database.execute(query, [list(files), request_id]).fetchall()
            ]
        except duckdb.BinderException:  # the input itself has a column of one of these names
            return []

    def _select(self, table: str, where: str, values: list[Any], order: str) -> list[dict[str, Any]]:
        files = self.files(table)
        if not files or not values:
            return []
        query = (
            "SELECT * FROM read_parquet(?, union_by_name=true, filename=true) "  # noqa: S608 - our own words
            f"WHERE {where} ORDER BY {order}"
        )
        return self._rows(query, [files, *values])

    def _rows(self, query: str, values: list[Any]) -> list[dict[str, Any]]:
        cursor = self._database.execute(query, values)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _with(found: list[dict[str, Any]], more: list[dict[str, Any]], *key: str) -> list[dict[str, Any]]:
    """Add what a run's ledger tells; a run that was killed while it closed may have its tables already."""
    known = {tuple(one[name] for name in key) for one in found}
    return found + [one for one in more if tuple(one[name] for name in key) not in known]


def _one_of(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join('?' * len(values))})"


def plain(value: Any) -> Any:
    """Return a value of a table as JSON: times in ISO 8601 UTC, money as text without an exponent."""
    if isinstance(value, date | time):
        return _iso(value)
    if isinstance(value, Decimal):
        return format(value.normalize() if value else Decimal(0), "f")
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, bytes):
        return value.hex()
    return value


def _iso(value: date | time) -> str:
    if not isinstance(value, datetime):
        return value.isoformat()
    return (value.astimezone(UTC) if value.tzinfo else value).isoformat().replace("+00:00", "Z")
