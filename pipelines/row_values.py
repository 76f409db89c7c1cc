"""A row's own values, found again in what a run wrote: its enriched rows or its dead letters."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pipelines.audit_query import AuditQuery, plain
from transforms.records.errors import RowError
from transforms.records.row import Outcome
from transforms.rules.identity import content_sha256, row_key
from transforms.storage.objects import list_files
from transforms.storage.runs import RunFolder


@dataclass(frozen=True, slots=True)
class RowValues:
    """What a run wrote about a row.

    Attributes:
        values: the input's columns as JSON values, or the raw text of a line that could not be read; None where
            the run wrote none (a pending row).
        origin: "enriched", "dead_letters" or None.
        answer: the answer's column of an enriched row.
        failure: {"stage", "kind", "reason", "attempts", "retryable"} of a dead letter.
    """

    values: dict[str, Any] | str | None = None
    origin: str | None = None
    answer: Any = None
    failure: dict[str, Any] | None = None


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
    for letter in _lines_with(folder, row_id):
        if letter.get("row_id") == row_id:
            facts = {name: letter.get(name) for name in ("stage", "kind", "reason", "attempts", "retryable")}
            return RowValues(letter.get("row"), "dead_letters", failure=facts)
    return RowValues()


def _from_enriched(audit: AuditQuery, folder: str, job: dict[str, Any], end: dict[str, Any]) -> RowValues:
    field = job["answer"]["field"]
    column = f"{field}_request_id"
    files = list_files(folder, ".parquet")
    if files:
        rows = audit.enriched(files, column, end["request_id"])
    else:
        rows = [row for row in _lines_with(folder, end["request_id"]) if row.get(column) == end["request_id"]]
    found = [(_input_columns(row, field), row.get(field)) for row in rows]
    match = next(((values, answer) for values, answer in found if _is_row(values, end["row_id"], job)), None)
    if match is None and len(found) == 1:
        match = found[0]
    return RowValues(plain(match[0]), "enriched", plain(match[1])) if match else RowValues()


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


def _lines_with(folder: str, text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines of a folder's files that hold a text; the search is on bytes, so that it is fast."""
    needle = orjson.dumps(text)
    for path in list_files(folder, ".jsonl"):
        with Path(path).open("rb") as file:
            for line in file:
                if needle in line:
                    yield orjson.loads(line)
