"""What a run wrote, as tables that SQL can ask: its calls, batches, rows, enriched rows and dead letters.

Every table is there, whatever the run wrote: one that a run left no files of (a crashed run has no outcomes of rows, an
input without rows no enriched file) is empty. Nothing is copied: DuckDB reads the columns that a question needs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from pipelines.duck_session import DuckSession
from transforms.records.errors import ConfigError
from transforms.rules.answer_type import AnswerType, json_type
from transforms.storage.arrow_types import AUDIT_SCHEMAS
from transforms.storage.objects import list_files, read_bytes
from transforms.storage.runs import CRASHED, RUNNING, RunFolder, list_runs

_AUDIT_TABLES = ("calls", "batches", "rows")
_LETTER_COLUMNS = {
    "row_id": "VARCHAR",
    "stage": "VARCHAR",
    "kind": "VARCHAR",
    "reason": "VARCHAR",
    "call_id": "VARCHAR",
    "source": "STRUCT(path VARCHAR, line BIGINT)",
}
_SQL_TYPES = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "decimal": "DECIMAL(38, 18)",
    "json": "VARCHAR",
}
#: A dead letter holds its whole row, and an enriched row is as long as its input: DuckDB's own limit is 16 MB.
_LONGEST_LINE = 256 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended, as its small files tell it.

    Attributes:
        summary: summary.json; of a crashed run what the run that sealed it could still tell.
    """

    folder: RunFolder
    manifest: dict[str, Any]
    summary: dict[str, Any]

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.folder.run_id

    @property
    def field(self) -> str:
        """The answer's column."""
        return str(self.manifest["job"]["answer"]["field"])

    @property
    def is_crashed(self) -> bool:
        """Whether it was killed: then it left no outcomes of rows."""
        return bool(self.manifest["status"] == CRASHED)


def find_run(output: str, name: str | None = None) -> Run:
    """Return a run that has ended.

    Args:
        output: the job's output folder.
        name: its id, the beginning of its id, "latest" (also None) or "previous" (the one before the latest).

    Raises:
        ConfigError: there is no such run, or more than one, or it has not ended; names what there is.
    """
    manifests = list_runs(output)
    if not manifests:
        raise ConfigError(f"{output} holds no run; name the `output` folder of a job that has run")
    ended = [manifest for manifest in manifests if manifest["status"] != RUNNING]
    place = {None: -1, "latest": -1, "previous": -2}.get(name)
    if place is None:
        return open_run(output, _named(output, str(name), manifests))
    if len(ended) < -place:
        have = "no run that has ended" if not ended else f"only one run that has ended, {ended[-1]['run_id']}"
        raise ConfigError(f"{output} has {have}, so there is no {name or 'latest'} run to tell of; run the job first")
    return open_run(output, ended[place])


def previous_runs(run: Run) -> list[Run]:
    """Return the runs of the same output that ended by themselves and began before this one, newest first."""
    began = run.manifest["started_at"]
    earlier = [
        manifest
        for manifest in list_runs(run.folder.output)
        if manifest["started_at"] < began and manifest["status"] not in (RUNNING, CRASHED)
    ]
    return [open_run(run.folder.output, manifest) for manifest in reversed(earlier)]


def open_run(output: str, manifest: dict[str, Any]) -> Run:
    """Return the run of a manifest."""
    folder = RunFolder(output, manifest["run_id"])
    try:
        summary = orjson.loads(read_bytes(folder.summary))
    except FileNotFoundError:
        summary = {}
    return Run(folder, manifest, summary)


def _named(output: str, name: str, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    found = [each for each in manifests if each["run_id"] == name] or [
        each for each in manifests if name and each["run_id"].startswith(name)
    ]
    if not found:
        known = ", ".join(each["run_id"] for each in manifests[-5:])
        raise ConfigError(f"{output} has no run {name}; its newest runs are {known} (or say latest, or previous)")
    if len(found) > 1:
        named = ", ".join(each["run_id"] for each in found[-5:])
        raise ConfigError(f"{name} is the beginning of {len(found)} runs: {named}; give more of the id")
    if found[0]["status"] == RUNNING:
        raise ConfigError(
            f"run {found[0]['run_id']} is under way, or was killed: its tables are not written yet; wait for its end, "
            f"or run the job again, which closes a run that was killed"
        )
    return found[0]


class RunTables(DuckSession):
    """A DuckDB connection with views over runs. Use it in a `with`."""

    def __init__(self) -> None:
        super().__init__(preserve_insertion_order="false")

    def add(self, run: Run, prefix: str = "") -> None:
        """Make the views <prefix>calls, batches, rows, letters and enriched of a run.

        `letters` are the dead letters; `enriched` has at least the answer's own column and `<field>_request_id`.
        """
        for table in _AUDIT_TABLES:
            files = list_files(run.folder.table(table), ".parquet")
            self._add_parquet(prefix + table, files, AUDIT_SCHEMAS[table])
        self._add_letters(prefix + "letters", list_files(run.folder.dead_letters, ".jsonl"))
        self._add_enriched(prefix + "enriched", run)

    def select(self, query: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows that a query gives."""
        found: list[dict[str, Any]] = self._database.sql(query, params=values or []).to_arrow_table().to_pylist()
        return found

    def one(self, query: str, values: list[Any] | None = None) -> dict[str, Any]:
        """Return the one row that a query without groups gives."""
        return self.select(query, values)[0]

    def run(self, statement: str, values: list[Any] | None = None) -> None:
        """Run a statement that gives no rows."""
        self._database.execute(statement, values or [])

    def columns(self, view: str) -> dict[str, AnswerType]:
        """Return the columns of a view with their types."""
        relation = self._database.view(view)
        return {name: _read_type(kind) for name, kind in zip(relation.columns, relation.types, strict=True)}

    def _add_parquet(self, view: str, files: list[str], schema: pa.Schema) -> None:
        if files:
            self._database.read_parquet(files, union_by_name=True).create_view(view)
        else:
            self._database.register(view, schema.empty_table())

    def _add_letters(self, view: str, files: list[str]) -> None:
        if files:
            self._read_lines(files, _LETTER_COLUMNS).create_view(view)
        else:
            self.run(f"CREATE TABLE {view} ({_listed(_LETTER_COLUMNS)})")

    def _add_enriched(self, view: str, run: Run) -> None:
        folder = run.folder.enriched
        files = list_files(folder, ".parquet")
        if files:
            self._database.read_parquet(files, union_by_name=True).create_view(view)
            return
        answer = run.manifest["job"]["answer"]
        columns = {
            run.field: _sql_type(json_type(answer.get("schema"))),
            **{f"{run.field}_{name}": "VARCHAR" for name in ("request_id", "template_hash", "lookup_hash", "error")},
        }
        files = [path for path in list_files(folder, ".jsonl") if Path(path).stat().st_size]
        if not files:
            self.run(f"CREATE TABLE {view} ({_listed(columns)})")
        elif answer.get("python"):
            # The class is not at hand: its answers' types are what their lines show.
            self._read_lines(files, None).create_view(view)
        else:
            self._read_lines(files, columns).create_view(view)

    def _read_lines(self, files: list[str], columns: dict[str, str] | None) -> duckdb.DuckDBPyRelation:
        how: dict[str, Any] = {"columns": columns} if columns else {"sample_size": -1, "union_by_name": True}
        return self._database.read_json(
            files,
            format="newline_delimited",
            maximum_object_size=_LONGEST_LINE,
            **how,
        )


def quoted(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())


def _sql_type(kind: AnswerType) -> str:
    if kind.kind == "object":
        return f"STRUCT({', '.join(f'{quoted(name)} {_sql_type(member)}' for name, member in kind.fields)})"
    if kind.kind == "array":
        return f"{_sql_type(kind.item or AnswerType('json'))}[]"
    return _SQL_TYPES[kind.kind]


def _read_type(kind: Any) -> AnswerType:
    """Return the type tree of a column; what answers have no name for (dates of the input, maps) counts as text."""
    name = str(kind.id)
    if name == "struct":
        return AnswerType("object", tuple((member, _read_type(child)) for member, child in kind.children))
    if name == "list":
        return AnswerType("array", item=_read_type(kind.children[0][1]))
    if name == "boolean":
        return AnswerType("boolean")
    if name in ("float", "double", "decimal"):
        return AnswerType("number")
    return AnswerType("integer") if "int" in name else AnswerType("string")
