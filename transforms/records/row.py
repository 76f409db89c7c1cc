"""Rows of the input table, before anything was asked about them. They pickle flat, see `records/request.py`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from transforms.records.quick import quick


@quick
@dataclass(frozen=True, slots=True)
class RawRow:
    """One readable input row, not yet identified.

    Attributes:
        values: column name to typed value, in the input's column order; without the keys that a JSONL line lacks.
        path: the file as the job named it (after glob expansion).
        line: 1-based physical line where the row begins; for Parquet the 1-based row number in the file.
    """

    values: dict[str, object]
    path: str
    line: int

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat."""
        return RawRow, (self.values, self.path, self.line)


@quick
@dataclass(frozen=True, slots=True)
class SourceRow:
    """One input row with its identity.

    Attributes:
        row_id: the key columns' values, or a content hash plus ordinal (see rules/identity.py).
        values: column name to typed value, in the input's column order.
        path: the file the row came from.
        line: 1-based line (CSV, JSONL) or row number (Parquet).
        content_sha256: hex digest of the row's canonical content.
    """

    row_id: str
    values: dict[str, object]
    path: str
    line: int
    content_sha256: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat."""
        return SourceRow, (self.row_id, self.values, self.path, self.line, self.content_sha256)


class Outcome(StrEnum):
    """Where a row ended in a run; each row in exactly one (P1)."""

    ENRICHED = "enriched"
    DEAD_LETTERED = "dead_lettered"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class AskedRow:
    """A row together with what its prompt was made of, waiting for its request's end."""

    row: SourceRow
    variables_sha256: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat."""
        return asked_from, self.flat()

    def flat(self) -> tuple[Any, ...]:
        """Return the record as one tuple of plain values, for `asked_from`."""
        row = self.row
        return row.row_id, row.values, row.path, row.line, row.content_sha256, self.variables_sha256


def asked_from(*flat: Any) -> AskedRow:
    """Build the record of `AskedRow.flat`."""
    return AskedRow(SourceRow(*flat[:-1]), flat[-1])


@quick
@dataclass(frozen=True, slots=True)
class RowOutcome:
    """A row of the audit table `rows`.

    Attributes:
        path, line: where the row was read; the identity that conservation is proved by.
        call_id, answered_in_run_id: the call that settled it and the run that made it, or None.
        reason: for a pending row, why it waits.
    """

    row_id: str
    path: str
    line: int
    outcome: Outcome
    request_id: str | None = None
    call_id: str | None = None
    answered_in_run_id: str | None = None
    reason: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat."""
        return _outcome, (
            self.outcome.value,
            self.row_id,
            self.path,
            self.line,
            self.request_id,
            self.call_id,
            self.answered_in_run_id,
            self.reason,
        )


_OUTCOMES = {str(outcome): outcome for outcome in Outcome}


def _outcome(outcome: str, row_id: str, path: str, line: int, *rest: Any) -> RowOutcome:
    return RowOutcome(row_id, path, line, _OUTCOMES[outcome], *rest)
