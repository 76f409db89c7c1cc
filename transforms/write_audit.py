"""WriteAudit: the run's ledger segments and row outcomes -> the audit tables calls, batches, batch_members, rows.

The ledger is the one source of what was called: it also holds the calls of bundles that a runner threw away and
tried again, which no PCollection does. So the segments are read back, after the last call, and written as tables.
Safe to retry: Beam's sinks write each table once.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.io.parquetio import WriteToParquet

from transforms._stage import BATCHES, MEMBERS
from transforms.records.call import BatchEnded, BatchOpened, CallRecord
from transforms.rules.run_totals import CallTotals
from transforms.storage.audit_rows import batch_row, call_row, member_rows, row_row
from transforms.storage.ledger import read_segment, segments
from transforms.storage.tables import AUDIT_SCHEMAS


class WriteAuditResult(NamedTuple):
    """totals: one CallTotals of the run's calls."""

    totals: pvalue.PCollection


class WriteAudit(beam.PTransform):
    """Write the audit tables of one run.

    Args:
        audit_folder: the run's audit folder; each table is a folder in it.
        ledger: the job's ledger folder.
        run_id: only this run's segments are read.
        settled: PCollections whose end means that the last call has been made.
    """

    def __init__(self, audit_folder: str, ledger: str, run_id: str, settled: list[pvalue.PCollection]) -> None:
        super().__init__()
        self._folder = audit_folder
        self._ledger = ledger
        self._run_id = run_id
        self._settled = settled

    def expand(self, outcomes: pvalue.PCollection) -> WriteAuditResult:
        """Write rows as they end, and calls and batches when all calls are made."""
        outcomes | "RowRecord" >> beam.Map(row_row, self._run_id) | "WriteRowsTable" >> self._write("rows")
        last_call = self._settled | "FlattenSettled" >> beam.Flatten() | "LastCall" >> beam.combiners.Count.Globally()
        lines = (
            last_call
            | "ListSegments" >> beam.FlatMap(_list_segments, self._ledger, self._run_id)
            | "SpreadSegments" >> beam.Reshuffle()
            | "ReadSegment" >> beam.ParDo(_ReadSegmentDoFn()).with_outputs(BATCHES, main="calls")
        )
        lines["calls"] | "CallRecord" >> beam.Map(call_row) | "WriteCallsTable" >> self._write("calls")
        ended = (
            lines[BATCHES]
            | "GroupBatch" >> beam.GroupByKey()
            | "BatchRecord" >> beam.ParDo(_BatchDoFn()).with_outputs(MEMBERS, main="batches")
        )
        ended["batches"] | "WriteBatchesTable" >> self._write("batches")
        ended[MEMBERS] | "WriteMembersTable" >> self._write("batch_members")
        totals = lines["calls"] | "SumCalls" >> beam.CombineGlobally(_CallTotalsCombineFn())
        return WriteAuditResult(totals)

    def _write(self, table: str) -> WriteToParquet:
        prefix = f"{self._folder}/{table}/part"
        return WriteToParquet(prefix, AUDIT_SCHEMAS[table], codec="zstd", file_name_suffix=".parquet")


def _list_segments(_count: int, ledger: str, run_id: str) -> list[str]:
    return segments(ledger, only_run=run_id)


class _ReadSegmentDoFn(beam.DoFn):
    def process(self, path: str) -> Iterator[Any]:
        for record in read_segment(path):
            if isinstance(record, CallRecord):
                yield record
            else:
                yield pvalue.TaggedOutput(BATCHES, (record.batch_id, record))


class _BatchDoFn(beam.DoFn):
    def process(self, keyed: tuple[str, Iterable[BatchOpened | BatchEnded]]) -> Iterator[Any]:
        records = list(keyed[1])
        opened = [record for record in records if isinstance(record, BatchOpened)]
        ended = [record for record in records if isinstance(record, BatchEnded)]
        yield batch_row(opened[0], ended)
        for member in member_rows(opened[0]):
            yield pvalue.TaggedOutput(MEMBERS, member)


class _CallTotalsCombineFn(beam.CombineFn):
    def create_accumulator(self) -> CallTotals:
        return CallTotals()

    def add_input(self, accumulator: CallTotals, record: CallRecord) -> CallTotals:
        return accumulator.add(record)

    def merge_accumulators(self, accumulators: Iterable[CallTotals]) -> CallTotals:
        merged = CallTotals()
        for one in accumulators:
            merged = merged.merge(one)
        return merged

    def extract_output(self, accumulator: CallTotals) -> CallTotals:
        return accumulator
