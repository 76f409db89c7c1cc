"""ReadRows: input files or BigQuery -> RawRow, and a DeadLetter for each line that can't be read.

One element per file (Parquet: per run of row groups; BigQuery: per range of rows) is spread over the workers; a file is read as a stream, so
that line numbers are true and memory is flat. Also yields the position of every row and bad line: what
conservation is proved against (P1). Safe to retry: reading has no effect.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import FAILURES, POSITIONS, Counters
from transforms.records.failure import DeadLetter
from transforms.records.settings import InputSettings
from transforms.storage.inputs import InputFile, InputSchema, WorkUnit, read_unit, work_units

#: Rows between two updates of the counter: seldom enough to cost nothing, often enough for a display.
COUNT_EVERY = 1000


class ReadRowsResult(NamedTuple):
    """rows: RawRow; failures: DeadLetter; positions: (path, line) of each of both."""

    rows: pvalue.PCollection
    failures: pvalue.PCollection
    positions: pvalue.PCollection


class ReadRows(beam.PTransform):
    """Read the rows of a job's input.

    Args:
        settings: the job's `input`.
        files: the files, as expanded and checked before launch.
        schema: column names and types, as found before launch.
    """

    def __init__(self, settings: InputSettings, files: list[InputFile], schema: InputSchema) -> None:
        super().__init__()
        self._settings = settings
        self._units = work_units(files)
        self._schema = schema

    def expand(self, root: Any) -> Any:
        """Spread the files over the workers and read each."""
        read = (
            root
            | "ListFiles" >> beam.Create(self._units, reshuffle=False)
            | "SpreadFiles" >> beam.Reshuffle()
            | "ReadFile"
            >> beam.ParDo(_ReadFileDoFn(self._settings, self._schema)).with_outputs(FAILURES, POSITIONS, main="rows")
        )
        return ReadRowsResult(read["rows"], read[FAILURES], read[POSITIONS])


class _ReadFileDoFn(beam.DoFn):
    def __init__(self, settings: InputSettings, schema: InputSchema) -> None:
        self._settings = settings
        self._schema = schema

    def setup(self) -> None:
        self._counters = Counters("ReadRows")

    def process(self, unit: WorkUnit) -> Iterator[Any]:
        rows = failures = 0
        counters = self._counters
        for row in read_unit(unit, self._settings, self._schema):
            yield pvalue.TaggedOutput(POSITIONS, (row.path, row.line))
            if isinstance(row, DeadLetter):
                failures += 1
                yield pvalue.TaggedOutput(FAILURES, row)
            else:
                rows += 1
                if rows == COUNT_EVERY:
                    counters.add("rows_read", rows)
                    rows = 0
                yield row
        counters.add("rows_read", rows)
        counters.add("lines_failed", failures)
