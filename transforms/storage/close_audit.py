"""The call tables of a run that came to its end.

While calls end, bundles write their rows of `calls` as parts: cheap, because the pool is waiting for the network.
The ledger stays the one source of truth: only when the parts hold exactly as many calls as its segments are they
taken; after a bundle that was thrown away, or a worker that died, the tables are made from the segments instead.
"""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.rules.run_totals import CallTotals
from transforms.storage.arrow_types import BATCH_MEMBERS, BATCHES, CALLS
from transforms.storage.audit_rows import Story, write_tables
from transforms.storage.ledger import segments
from transforms.storage.ledger_lines import count_calls
from transforms.storage.objects import exists, join, local_copy, open_read
from transforms.storage.parts import name_parts
from transforms.storage.runs import RunFolder
from transforms.storage.tables import ParquetWriter

_PART = "part-00000.parquet"
_TOTALS = ("call_type", "status", "outcome", "input_tokens", "output_tokens", "cost_usd", "cost_reason")


def write_call_tables(folder: RunFolder, ledger: str, parts: list[str]) -> CallTotals:
    """Write the audit tables calls, batches and batch_members of a run; return the sums over its calls.

    Ask when the run's last call is recorded. Asking again gives the same tables.

    Args:
        folder: the run's folder.
        ledger: the job's ledger folder.
        parts: paths of the parts of `calls` that bundles wrote.

    Raises:
        InternalError: the ledger is damaged.
    """
    paths = segments(ledger, only_run=folder.run_id)
    if not _write_batches(folder, paths, sum(_row_count(part) for part in parts)):
        name_parts(folder.table("calls"), [])
        return write_tables(folder, paths).totals
    names = name_parts(folder.table("calls"), parts, CALLS)
    totals = CallTotals()
    for name in names:
        _add(totals, name)
    return totals


def _write_batches(folder: RunFolder, paths: list[str], call_count: int) -> bool:
    """Write batches and batch_members; write nothing and return False when the parts of `calls` can't be taken."""
    members = ParquetWriter(join(folder.table("batch_members"), _PART), BATCH_MEMBERS)
    try:
        story = Story(members)
        recorded = sum(count_calls(path, story.take) for path in paths)
        if story.interrupted_count or recorded != call_count:
            members.discard()
            return False
        with ParquetWriter(join(folder.table("batches"), _PART), BATCHES) as batches:
            batches.extend(story.batch_rows())
        members.close()
    except BaseException:
        members.discard()
        raise
    return True


def _row_count(part: str) -> int:
    # A second try of the closing finds the parts named already: then the count can't be taken from them.
    if not exists(part):
        return -1
    with open_read(part) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def _add(totals: CallTotals, path: str) -> None:
    file = pq.ParquetFile(local_copy(path))
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=list(_TOTALS))
        table = table.filter(pc.equal(table["call_type"], "LLM"))
        failed = table.filter(pc.equal(table["status"], "ERROR"))
        unknown = table.filter(pc.is_null(table["cost_usd"]))
        totals.sent += len(table)
        totals.failed += len(failed)
        totals.succeeded += len(table) - len(failed)
        totals.input_tokens += _sum(table["input_tokens"])
        totals.output_tokens += _sum(table["output_tokens"])
        totals.cost_usd += pc.sum(table["cost_usd"]).as_py() or 0
        totals.unknown_cost += len(unknown)
        totals.failures.update(_counted(failed["outcome"]))
        totals.cost_reasons.update(_counted(unknown["cost_reason"]))


def _sum(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"] or "no reason given": entry["counts"] for entry in pc.value_counts(column).to_pylist()}
