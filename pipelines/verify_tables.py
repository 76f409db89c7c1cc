"""The audit tables of all closed runs in DuckDB, beside what dead letters, enriched rows and the ledger hold.

Small outputs are loaded once; large ones are read from their files by each question, and what a question needs beyond a
fixed memory goes to a temporary folder.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.run_tables import literal, quoted
from pipelines.verify_findings import MAX_IDS, Check, Scope, some
from pipelines.verify_keys import QUESTIONS
from transforms.storage.arrow_types import AUDIT_SCHEMAS

_LOADED_ROWS = 100_000
_PLAIN_ROWS = 2_000
_MEMORY = "512MB"

_COLUMNS = {
    "runs": "run_id, calls_sent, calls_succeeded, calls_failed, input_tokens, output_tokens, cost_usd",
    "batches": "batch_id, run_id, batch_key, provider_batch_id, request_count",
    "batch_members": "batch_id, ordinal, custom_id, request_id",
    "calls": (
        "call_id, run_id, batch_id, call_index, call_type, custom_id, request_id, root_request_id, status, "
        "input_tokens, output_tokens, cost_usd"
    ),
    "rows": "row_id, run_id, request_id, outcome, call_id, answered_in_run_id",
}


class Tables:
    """Relations in DuckDB: the five audit tables, and what the loaders add; use `open_tables`.

    letters(run_id, row_id, stage), answers(run_id, request_id, error), recorded(run_id, call_id): what dead letters,
    enriched rows and the ledger hold of the checked runs.
    """

    def __init__(self, scope: Scope, database: duckdb.DuckDBPyConnection) -> None:
        self.database = database
        files = {
            name: [path for manifest in scope.closed for path in scope.listed(manifest, f"audit/{name}")]
            for name in AUDIT_SCHEMAS
        }
        row_count = sum(file["rows"] or 0 for manifest in scope.closed for file in manifest["files"])
        self._form = "TEMP TABLE" if row_count <= _LOADED_ROWS else "TEMP VIEW"
        if row_count <= _PLAIN_ROWS:
            # To plan the questions well takes longer than to answer them as they stand.
            database.execute("PRAGMA disable_optimizer")
        for name, paths in files.items():
            self._create(name, paths)
        self._answers: list[str] = []
        database.execute(
            "CREATE TEMP TABLE letters (run_id VARCHAR, row_id VARCHAR, stage VARCHAR);"
            "CREATE TEMP TABLE lines (run_id VARCHAR, request_id VARCHAR, error VARCHAR);"
            "CREATE TEMP TABLE recorded (run_id VARCHAR, call_id VARCHAR)"
        )
        is_whole = len(scope.checked) == len(scope.closed)
        self._own = "true" if is_whole else _is_of(scope.checked)
        self._ended = _is_of(scope.ended)

    def ask(self) -> list[Check]:
        """Ask all questions at once; return their checks.

        Raises:
            duckdb.Error: a file can't be read.
        """
        sources = ["FROM lines", *self._answers]
        self.database.execute("CREATE TEMP VIEW answers AS " + " UNION ALL ".join(sources))
        parts = (
            f"SELECT '{name}' AS name, run_id, id FROM ({sql.format(own=self._own, ended=self._ended)})"  # noqa: S608 - our own words
            for name, (_, sql) in QUESTIONS.items()
        )
        grouped = (
            f"SELECT name, run_id, count(*), list(id)[1:{MAX_IDS}] FROM ({' UNION ALL '.join(parts)}) GROUP BY ALL"  # noqa: S608 - likewise
        )
        checks = {name: Check(name, says) for name, (says, _) in QUESTIONS.items()}
        for name, run_id, count, ids in sorted(self.database.execute(grouped).fetchall()):
            checks[name].found(f"run {run_id}: not so that {checks[name].says}: {some(ids, count)}", count)
        return list(checks.values())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.database.execute(sql).fetchall()

    def add(self, name: str, run_id: str, **columns: list[str | None]) -> None:
        """Add rows of one run to letters, lines or recorded; columns in their order."""
        count = len(next(iter(columns.values())))
        texts = {"run_id": [run_id] * count, **columns}
        batch = pa.table({column: pa.array(values, pa.string()) for column, values in texts.items()})
        self.database.register("added", batch)
        self.database.execute(f"INSERT INTO {name} FROM added")
        self.database.unregister("added")

    def add_answers(self, run_id: str, paths: Sequence[str], request_id: str, error: str | None) -> None:
        """Add a run's enriched Parquet files to `answers`; request_id and error are the columns of these."""
        errors = "NULL" if error is None else quoted(error)
        self._answers.append(
            f"SELECT {literal(run_id)}, {quoted(request_id)}, {errors} FROM {_parquet(paths)}"  # noqa: S608 - quoted
        )

    def _create(self, name: str, paths: Sequence[str]) -> None:
        source = _parquet(paths)
        if not paths:
            source = f"no_{name}"
            self.database.register(source, AUDIT_SCHEMAS[name].empty_table())
        self.database.execute(f"CREATE {self._form} {name} AS SELECT {_COLUMNS[name]} FROM {source}")  # noqa: S608 - quoted


@contextmanager
def open_tables(scope: Scope) -> Iterator[Tables]:
    """Open the tables for a `with` block.

    Raises:
        duckdb.Error, OSError: a file can't be read.
    """
    # Temporary tables belong to the cursor, so that they end with it.
    with _database().cursor() as cursor:
        yield Tables(scope, cursor)


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """Return the process's own DuckDB, which takes as long to start as a small output takes to check."""
    scratch = Path(tempfile.gettempdir()) / f"rowbeam-verify-{os.getpid()}"
    return duckdb.connect(":memory:", config={"memory_limit": _MEMORY, "temp_directory": str(scratch)})


def _parquet(paths: Sequence[str]) -> str:
    return f"read_parquet([{', '.join(map(literal, paths))}], union_by_name = true, hive_partitioning = false)"


def _is_of(manifests: Sequence[dict[str, Any]]) -> str:
    return f"r.run_id IN ({', '.join(literal(one['run_id']) for one in manifests) or 'NULL'})"
