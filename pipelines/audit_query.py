"""Questions to the audit tables of all runs of an output, answered by DuckDB over their Parquet files.

Reads only the columns and rows asked for: one row among a million calls takes well under a second.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

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


class AuditQuery:
    """The audit tables of one output. Use it in a `with`.

    Args:
        output: the output folder.
    """

    def __init__(self, output: str) -> None:
        self._runs = Path(output) / "runs"
        self._database = duckdb.connect(":memory:", config={"threads": "2"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def files(self, table: str, run_id: str = "*") -> list[str]:
        """Return the table's files, of all runs or of one."""
        return sorted(str(path) for path in self._runs.glob(f"{run_id}/audit/{table}/*.parquet"))

    def row_ends(self, row_id: str) -> list[dict[str, Any]]:
        """Return the rows of table `rows` with this row_id, oldest run first."""
        return self._select("rows", "row_id = ?", [row_id], "run_id")

    def calls_for(self, root_request_id: str) -> list[dict[str, Any]]:
        """Return all calls made for a request, its repair included, in the order they were sent."""
        return self._select("calls", "root_request_id = ?", [root_request_id], "started_at, call_index")

    def batches(self, batch_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the batches of these ids, in the order they were taken up; of a provider's batch a row per run."""
        return self._select("batches", "list_contains(?, batch_id)", [list(batch_ids)], "submitted_at, run_id")

    def exchanges(self, batch_ids: Sequence[str], run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the HTTP exchanges that these runs made for these batches, in the order of each batch; no payloads."""
        files = [path for run_id in run_ids for path in self.files("calls", run_id)]
        if not files:
            return []
        query = (
            f"SELECT {', '.join(_EXCHANGE_COLUMNS)} FROM read_parquet(?, union_by_name=true) "  # noqa: S608 - our own words
            "WHERE call_type = 'HTTP' AND list_contains(?, batch_id) ORDER BY batch_id, call_index, started_at"
        )
        return self._rows(query, [files, list(batch_ids)])

    def places(self, request_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the memberships of these requests: batch_id, ordinal, custom_id, request_id."""
        return self._select("batch_members", "list_contains(?, request_id)", [list(request_ids)], "batch_id")

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

    def _select(self, table: str, where: str, values: list[Any], order: str) -> list[dict[str, Any]]:
        files = self.files(table)
        if not files:
            return []
        query = f"SELECT * FROM read_parquet(?, union_by_name=true) WHERE {where} ORDER BY {order}"  # noqa: S608 - our own words
        return self._rows(query, [files, *values])

    def _rows(self, query: str, values: list[Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._database.sql(query, params=values).to_arrow_table().to_pylist()
        return found


def plain(value: Any) -> Any:
    """Return a value of a table as JSON: times in ISO 8601 UTC, money as text without an exponent."""
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return format(value.normalize() if value else Decimal(0), "f")
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, bytes):
        return value.hex()
    return value
