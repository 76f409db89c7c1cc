"""IdentifyRows: RawRow -> SourceRow with a row_id, and a DeadLetter for each row without a usable key.

Rows are grouped by their key (or by the hash of their content where the job names no key), because only the whole
group shows a key used twice. Deterministic: the same rows get the same ids in any order. Safe to retry.
"""

import pickle
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import FAILURES, Counters
from transforms.records.errors import RowError
from transforms.records.failure import DeadLetter, Stage
from transforms.records.row import RawRow, SourceRow
from transforms.rules.identity import content_sha256, identify_group, line_id, row_key


class IdentifyRowsResult(NamedTuple):
    """rows: SourceRow; failures: DeadLetter (missing_key, duplicate_key)."""

    rows: pvalue.PCollection
    failures: pvalue.PCollection


class IdentifyRows(beam.PTransform):
    """Give every row its row_id.

    Args:
        key: the job's key columns; empty means identity by content.
    """

    def __init__(self, key: list[str]) -> None:
        super().__init__()
        self._key = key

    def expand(self, rows: pvalue.PCollection) -> Any:
        """Key the rows, group them, and name each."""
        key = beam.ParDo(_KeyRowDoFn(self._key)).with_output_types(tuple[str, bytes])
        keyed = rows | "KeyByIdentity" >> key.with_outputs(FAILURES, main="rows")
        named = (
            keyed["rows"]
            | "GroupByIdentity" >> beam.GroupByKey()
            | "NameRows" >> beam.ParDo(_NameRowsDoFn(has_key=bool(self._key))).with_outputs(FAILURES, main="rows")
        )
        failures = (keyed[FAILURES], named[FAILURES]) | "FlattenFailures" >> beam.Flatten()
        return IdentifyRowsResult(named["rows"], failures)


class _KeyRowDoFn(beam.DoFn):
    def __init__(self, key: list[str]) -> None:
        self._key = key

    def process(self, row: RawRow) -> Iterator[Any]:
        try:
            key = row_key(row.values, self._key) if self._key else content_sha256(row.values)
        except RowError as error:
            row_id = line_id(row.path, row.line)
            yield pvalue.TaggedOutput(
                FAILURES,
                DeadLetter(row_id, Stage.IDENTIFY, error.kind, error.reason, 0, False, row.path, row.line, row.values),
            )
        else:
            yield key, pickle.dumps((row.values, row.path, row.line), pickle.HIGHEST_PROTOCOL)


class _NameRowsDoFn(beam.DoFn):
    def __init__(self, *, has_key: bool) -> None:
        self._has_key = has_key

    def setup(self) -> None:
        self._counters = Counters("IdentifyRows")

    def process(self, keyed: tuple[str, Iterable[bytes]]) -> Iterator[Any]:
        rows = [RawRow(*pickle.loads(packed)) for packed in keyed[1]]  # noqa: S301 - packed in this pipeline
        for row in identify_group(keyed[0], rows, has_key=self._has_key):
            if isinstance(row, SourceRow):
                yield row
            else:
                self._counters.add("duplicate_keys")
                yield pvalue.TaggedOutput(FAILURES, row)
