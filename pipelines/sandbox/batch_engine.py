"""Files and batches of all providers: kept, checked, run on compressed time, answered and billed. No HTTP here.

How a provider's part uses the desk (`desk` is `call.desk` in an endpoint, see batch_http.py):

    spool = Spool(); spool.write(...)                     # batch_spool.py: one request per line, as the client wrote it
    file = desk.store(provider, spool, file_name, purpose, extra)        # only where there are files
    batch = desk.accept(dialect, spool, order, "batch_")  # accepted: on the bill, whatever becomes of the reply
    view = desk.view(batch)                               # status, counts and times of now
    desk.cancel(batch)                                    # False when it is too late
    for line in desk.results(batch, Part.ALL): ...        # lines with their newline, made while they are read

Accepting starts the check of the lines in the background, in slices; a batch stays `validating` until it is done
(`await desk.checked(batch)` waits for it). Everything else follows from the clock. Rows run in an order of their own
(fault out_of_order, on by default); a batch that expires or is cancelled has answered the first rows of that order.

Attempts are shared with real time where it matters: a row that met a fault in a batch counts as a try of its request,
so that trying again (in real time or in another batch) draws anew; sticky faults stay. A row that went well doesn't count.

Billed is a row whose result can be read and has status 200 with an answer: not one whose result got lost by a fault
(missing, status_zero, malformed_line), nor any row of a rejected batch.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.sandbox.batch_clock import ENDED, BatchStatus, BatchTiming, Course, expiry_s, moment
from pipelines.sandbox.batch_events import EventLog, Gate
from pipelines.sandbox.batch_faults import FaultCounts
from pipelines.sandbox.batch_records import Batch, BatchView, Part, StoredFile
from pipelines.sandbox.batch_rows import Dialect, Order, RowEnd, RowProblem, Rows
from pipelines.sandbox.batch_run import Run, check
from pipelines.sandbox.batch_spool import Spool
from pipelines.sandbox.rehearsal import Rehearsal

__all__ = ["Batch", "BatchView", "Desk", "Part", "StoredFile"]


#: What late_token_limit says where no limit is set.
_SOME_LIMIT = 90_000


class Desk:
    """All files and batches of one sandbox. One event loop, no threads.

    Args:
        rehearsal: answers rows, with its plan and seed.
        timing: how long a batch takes.
        on_checked: told of every batch (id, provider, rows that will run: 0 when it is rejected).
        clock: Unix seconds.

    Attributes:
        faults: the batch section of the plan in place, running down.
        events: what happened; gate: where replies are held.
        deleted_files: ids of deleted files, those of results included.
    """

    def __init__(
        self,
        rehearsal: Rehearsal,
        timing: BatchTiming,
        on_checked: Callable[[str, str, int], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rehearsal = rehearsal
        self.timing = timing
        self.clock = clock
        self._on_checked = on_checked
        self.events = EventLog()
        self.gate = Gate()
        self.faults = FaultCounts(rehearsal.decider.plan.batch)
        self.deleted_files: set[str] = set()
        self._files: dict[str, StoredFile] = {}
        self._batches: dict[str, Batch] = {}

    def clear(self) -> None:
        """Forget all files, batches and events; the fault counts start anew."""
        for batch in self._batches.values():
            if batch.check:
                batch.check.cancel()
        self._files.clear()
        self.deleted_files.clear()
        self._batches.clear()
        self.events.clear()
        self.renew_faults()

    def renew_faults(self) -> None:
        """Take over the batch section of the rehearsal's plan; its counts start anew."""
        self.faults = FaultCounts(self.rehearsal.decider.plan.batch)

    def store(self, provider: str, spool: Spool, name: str, purpose: str, extra: dict[str, Any]) -> StoredFile:
        """Keep an uploaded file under a new id (`file-` and 32 hexadecimal digits)."""
        file = StoredFile(f"file-{secrets.token_hex(16)}", provider, name, purpose, spool, self.clock(), extra)
        self._files[file.id] = file
        return file

    def file(self, provider: str, file_id: str) -> StoredFile | None:
        """Return an uploaded file of this provider, or None. Result files are the provider's part's own matter."""
        file = self._files.get(file_id)
        return file if file and file.provider == provider else None

    def files(self, provider: str) -> list[StoredFile]:
        """Return a provider's uploaded files, newest first."""
        return [file for file in reversed(self._files.values()) if file.provider == provider]

    def delete_file(self, file_id: str) -> None:
        """Forget a file, or note that a result file is gone; batches made from it keep what they need."""
        self._files.pop(file_id, None)
        self.deleted_files.add(file_id)

    def accept(
        self, dialect: Dialect, spool: Spool, order: Order, prefix: str, problem: RowProblem | None = None
    ) -> Batch:
        """Accept a batch and start checking its lines in the background.

        Args:
            dialect: how to read and write its rows.
            spool: its request lines.
            order: what the create asked for.
            prefix: of the id.
            problem: rejects the batch whatever its lines are (a file id that is none).
        """
        now_s = self.clock()
        expires_s = expiry_s(now_s, self.timing, expires=dialect.expires)
        batch = Batch(f"{prefix}{secrets.token_hex(16)}", dialect, spool, order, self.faults.whims(), now_s, expires_s)
        self._batches[batch.id] = batch
        batch.check = asyncio.get_running_loop().create_task(self._check(batch, problem))
        self.events.note("create_accepted", batch.provider, batch_id=batch.id)
        return batch

    def batch(self, provider: str, batch_id: str) -> Batch | None:
        """Return a batch of this provider, or None."""
        batch = self._batches.get(batch_id)
        return batch if batch and batch.provider == provider and not batch.is_deleted else None

    def batches(self, provider: str) -> list[Batch]:
        """Return a provider's batches, newest first."""
        return [
            batch for batch in reversed(self._batches.values()) if batch.provider == provider and not batch.is_deleted
        ]

    def accepted(self) -> list[Batch]:
        """Return every batch that was ever accepted, oldest first, for the bill."""
        return list(self._batches.values())

    def delete_batch(self, batch: Batch) -> None:
        """Make a batch unknown from now on. It stays on the bill."""
        batch.is_deleted = True

    async def checked(self, batch: Batch) -> None:
        """Wait until the lines of a batch have been checked."""
        if batch.check and not batch.check.done():
            await asyncio.wait([batch.check])

    def view(self, batch: Batch) -> BatchView:
        """Return where a batch is now, by the clock."""
        course = Course(
            batch.created_s, batch.checked_s, bool(batch.problems), batch.whims.is_stuck, batch.whims.plan.expire_at,
            batch.expires_s, batch.cancel_s,
        )  # fmt: skip
        now = moment(course, self.timing, self.clock())
        if batch.run is None or batch.problems:
            return BatchView(now.status, 0, 0, 0, 0, now.times, False, False)
        done = batch.run.done(now.share)
        completed, failed = batch.run.counts(done)
        has_output, has_error = batch.run.parts(done) if now.status in ENDED else (False, False)
        total = len(batch.run.rows)
        has_error = has_error or (now.status in ENDED and done < total)
        return BatchView(now.status, total, completed, failed, total - done, now.times, has_output, has_error)

    def cancel(self, batch: Batch) -> bool:
        """Cancel a batch that is validating or in progress; False when it is too late or was done before."""
        if self.view(batch).status not in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS):
            return False
        batch.cancel_s = self.clock()
        self.events.note("cancelled", batch.provider, batch_id=batch.id)
        return True

    def results(self, batch: Batch, part: Part) -> Iterator[bytes]:
        """Yield the result lines of a batch that has ended, each with its newline; nothing before the end.

        Lines are made while they are read: let the event loop have a turn every few hundred.
        """
        view = self.view(batch)
        if batch.run is None or batch.problems or not view.has_ended:
            return iter(())
        done = view.completed + view.failed
        return batch.run.results(done, _ENDS[view.status], good=part is not Part.ERROR, bad=part is not Part.OUTPUT)

    def billed(self, batch: Batch) -> list[bytes]:
        """Return the request hashes of the rows that are paid for: none before the end."""
        view = self.view(batch)
        if batch.run is None or batch.problems or not view.has_ended:
            return []
        return [batch.run.rows.hash_of(row) for row in batch.run.billed(view.completed + view.failed)]

    async def preview(self, dialect: Dialect, spool: Spool, order: Order) -> RowProblem | None:
        """Return why a batch could not be queued now, before it is accepted (Azure's fail-fast regions), or None."""
        rows, problems = await check(self.rehearsal, dialect, spool, order)
        if problems:
            return None
        return self._over_limit(dialect.provider, rows, is_late=self.faults.take("late_token_limit"))

    def _over_limit(self, provider: str, rows: Rows, *, is_late: bool) -> RowProblem | None:
        """Return why checked rows can't be queued: late_token_limit, or unfinished batches leave no room for them."""
        limit = self.faults.plan.enqueued_limit
        queued = sum(
            other.rows.tokens
            for other in self._batches.values()
            if other.provider == provider and other.run and other.rows and other.rows.model == rows.model
            and not self.view(other).has_ended
        )  # fmt: skip
        if not is_late and (limit is None or queued + rows.tokens <= limit):
            return None
        text = (
            f"Enqueued token limit reached for {rows.model} in organization org-sandbox. Limit: {limit or _SOME_LIMIT} enqueued "
            "tokens. Please try again once some in_progress batches have been completed."
        )
        return RowProblem("token_limit_exceeded", text)

    async def _check(self, batch: Batch, problem: RowProblem | None) -> None:
        rows, problems = await check(self.rehearsal, batch.dialect, batch.spool, batch.order)
        batch.rows = rows
        if problem:
            problems = (problem,)
        elif not batch.dialect.rejects_bad_rows:
            problems = ()
        elif batch.whims.is_rejected:
            line = min(batch.whims.plan.reject_line, max(1, len(rows)))
            problems = (RowProblem("invalid_json_line", "This line is not parseable as valid JSON.", None, line),)
        elif not problems:
            problem = self._over_limit(batch.provider, rows, is_late=batch.whims.is_late)
            problems = (problem,) if problem else ()
        batch.problems = problems
        if not problems:
            batch.run = Run(
                self.rehearsal, batch.dialect, batch.spool, batch.order, rows, batch.whims.plan,
                rows.hash_of(0),
            )  # fmt: skip
            for row, fault in enumerate(rows.faults):
                if fault:
                    self.rehearsal.count_try(rows.hash_of(row), rows.tries[row])
        batch.checked_s = self.clock()
        self._on_checked(batch.id, batch.provider, 0 if problems else len(rows))


_ENDS = {
    BatchStatus.COMPLETED: RowEnd.ANSWERED,
    BatchStatus.EXPIRED: RowEnd.EXPIRED,
    BatchStatus.CANCELLED: RowEnd.CANCELLED,
}
