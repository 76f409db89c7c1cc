"""A row's own values, found again in what a run wrote: its enriched rows or its dead letters."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipelines.audit_query import AuditQuery, plain
from transforms.records.errors import RowError
from transforms.records.row import Outcome
from transforms.rules.identity import content_sha256, row_key
from transforms.storage.objects import list_files, open_read
from transforms.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class RowValues:
    """What a run wrote about a row.

    Attributes:
        values: the input's columns as JSON values, or the raw text of a line that could not be read; None where
            the run wrote none (a pending row).
        origin: "enriched", "dead_letters" or None.
        answer: the answer's column of an enriched row.
        failure: {"stage", "kind", "reason", "attempts", "retryable"} of a dead letter.
        path: the file that has the row; None where none has.
        row: its row in that file, from 1 (of a JSON lines file its line); None where it can't be told.
        content_sha256: hash of the values, as the run took it; None without values.
        columns: the answer's other columns of an enriched row, without the field's name and "_" in front.
    """

    values: dict[str, Any] | str | None = None
    origin: str | None = None
    answer: Any = None
    failure: dict[str, Any] | None = None
    path: str | None = None
    row: int | None = None
    content_sha256: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)


def find_values(audit: AuditQuery, output: str, manifest: dict[str, Any], end: dict[str, Any]) -> RowValues:
    """Find a row's values in its run's files.

    Args:
        audit: the output's audit.
        output: the output folder.
        manifest: of the row's run.
        end: the row's line in the audit table rows.
    """
    folder = RunFolder(output, end["run_id"])
    if end["outcome"] == Outcome.DEAD_LETTERED:
        return _from_dead_letters(folder.dead_letters, end["row_id"])
    if end["outcome"] == Outcome.ENRICHED and end["request_id"]:
        return _from_enriched(audit, folder.enriched, manifest["job"], end)
    return RowValues()


def _from_dead_letters(folder: str, row_id: str) -> RowValues:
    for path, line, letter in _lines_with(folder, row_id):
        if letter.get("row_id") == row_id:
            facts = {name: letter.get(name) for name in ("stage", "kind", "reason", "attempts", "retryable")}
            row = letter.get("row")
            digest = content_sha256(row) if isinstance(row, dict) else None
            return RowValues(row, "dead_letters", failure=facts, path=path, row=line, content_sha256=digest)
    return RowValues()


def _from_enriched(audit: AuditQuery, folder: str, job: dict[str, Any], end: dict[str, Any]) -> RowValues:
    name = job["answer"]["field"]
    found = _enriched_rows(audit, folder, f"{name}_request_id", end["request_id"])
    match = next((one for one in found if _is_row(_input_columns(one[2], name), end["row_id"], job)), None)
    if match is None and len(found) == 1:
        match = found[0]
    if match is None:
        return RowValues()
    path, row, columns = match
    ours = {key.removeprefix(f"{name}_"): plain(columns[key]) for key in columns if key.startswith(f"{name}_")}
    values = _input_columns(columns, name)
    return RowValues(
        plain(values),
        "enriched",
        plain(columns.get(name)),
        path=path,
        row=row,
        content_sha256=content_sha256(values),
        columns=ours,
    )


def _enriched_rows(
    audit: AuditQuery, folder: str, column: str, request_id: str
) -> list[tuple[str | None, int | None, dict[str, Any]]]:
    """Return (file, row from 1, columns) of the enriched rows of a request."""
    files = list_files(folder, ".parquet")
    if not files:
        return [one for one in _lines_with(folder, request_id) if one[2].get(column) == request_id]
    rows = audit.enriched(files, column, request_id)
    places = audit.places_in_files(files, column, request_id)
    known = places if len(places) == len(rows) else [(None, None)] * len(rows)
    return [(path, place, row) for (path, place), row in zip(known, rows, strict=True)]


def _input_columns(row: dict[str, Any], field: str) -> dict[str, Any]:
    """Return the columns before the answer's: the input's own."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        if name == field:
            break
        values[name] = value
    return values


def _is_row(values: dict[str, Any], row_id: str, job: dict[str, Any]) -> bool:
    key = job["input"].get("key") or []
    if not key:
        return row_id.rpartition("-")[0] == f"h{content_sha256(values)[:24]}"
    try:
        text = row_key(values, key)
    except RowError:
        return False
    return row_id == text or row_id.rpartition("~")[0] == text


def _lines_with(folder: str, text: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield (file, line, object) of a folder's JSON lines that hold a text; the search is on bytes, to be fast."""
    needle = orjson.dumps(text)
    for path in list_files(folder, ".jsonl"):
        with open_read(path) as file:
            for number, line in enumerate(file, 1):
                if needle in line:
                    yield path, number, orjson.loads(line)
