"""Runs that are under way, or were killed and are not sealed: what their ledger tells, in the form of the audit tables.

The next run of the job seals such a run, and gives it its audit tables; until then the ledger has all there is.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from transforms.records.call import BatchEnded, BatchOpened, CallRecord
from transforms.storage.ledger_search import find_records

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HTTP = '"call_type":"HTTP"'
_BATCH = '"type":"batch'


class OpenRuns:
    """The ledger of some runs, asked as `AuditQuery` asks the tables of the others.

    Args:
        output: the output folder.
        run_ids: runs whose manifest says running.
    """

    def __init__(self, output: str, run_ids: Sequence[str]) -> None:
        self._ledger = str(Path(output) / "ledger")
        self._run_ids = tuple(run_ids)

    def calls_for(self, root_request_id: str) -> list[dict[str, Any]]:
        """Return all calls made for a request, its repair included."""
        return [
            _call_row(record)
            for record in self._find(root_request_id)
            if isinstance(record, CallRecord) and record.root_request_id == root_request_id
        ]

    def exchanges(self, batch_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the HTTP exchanges of these batches."""
        found = [record for batch_id in batch_ids for record in self._find(batch_id, _HTTP)]
        return [_call_row(record) for record in found if isinstance(record, CallRecord)]

    def batches(self, batch_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the batches of these ids; one that has not ended is `interrupted`, as sealing would say."""
        return [row for batch_id in batch_ids for run_id in self._run_ids for row in self._batch(run_id, batch_id)]

    def places(self, request_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the memberships of these requests."""
        opened = {
            record.batch_id: record
            for request_id in request_ids
            for record in self._find(request_id, _BATCH)
            if isinstance(record, BatchOpened)
        }
        return [row for record in opened.values() for row in _members(record) if row["request_id"] in request_ids]

    def _find(self, text: str, beside: str = "") -> list[CallRecord | BatchOpened | BatchEnded]:
        return [record for run_id in self._run_ids for record in find_records(self._ledger, run_id, text, beside)]

    def _batch(self, run_id: str, batch_id: str) -> list[dict[str, Any]]:
        records = [
            one for one in find_records(self._ledger, run_id, batch_id, _BATCH) if not isinstance(one, CallRecord)
        ]
        opened = [one for one in records if isinstance(one, BatchOpened) and one.batch_id == batch_id]
        ended = [one for one in records if isinstance(one, BatchEnded) and one.batch_id == batch_id]
        return [_batch_row(opened[0], ended[-1] if ended else None)] if opened else []


# Made only where there is such a run: these rows come with the tables' schemas, and those with Arrow.
def _call_row(record: CallRecord) -> dict[str, Any]:
    from transforms.storage.audit_rows import call_row

    row = call_row(record)
    return row | {"started_at": _time(record.started_at_us), "finish_reasons": list(record.finish_reasons)}


def _batch_row(opened: BatchOpened, ended: BatchEnded | None) -> dict[str, Any]:
    from transforms.storage.audit_rows import batch_row

    count = opened.request_count if opened.request_count is not None else len(opened.members)
    row = batch_row(opened, count, ended)
    ended_at = None if row["ended_at"] is None else _time(row["ended_at"])
    return row | {"submitted_at": _time(row["submitted_at"]), "ended_at": ended_at}


def _members(opened: BatchOpened) -> list[dict[str, Any]]:
    from transforms.storage.audit_rows import member_rows

    return member_rows(opened)


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
