"""Rows of the input table, before anything was asked about them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawRow:
    """One readable input row, not yet identified.

    Attributes:
        values: column name to typed value, in the input's column order.
        path: the file as the job named it (after glob expansion).
        line: 1-based physical line where the row begins; for Parquet the 1-based row number in the file.
    """

    values: dict[str, object]
    path: str
    line: int


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
