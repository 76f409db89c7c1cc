"""The batches' part of the bill."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pipelines.sandbox.batch_engine import Batch, Desk
from pipelines.sandbox.batch_rows import RowAsked, answer


async def batch_summary(desk: Desk, paid: Iterable[str], *, with_entries: bool) -> dict[str, Any]:
    """Return what batches add to the bill.

    Waits until every accepted batch has been checked, so that its rows are known.

    Args:
        desk: has the batches.
        paid: the request hashes paid in real time, in hexadecimal, one for each payment.
        with_entries: add `batches`: of each its id, provider, status, rows, billed, request_hashes (of all accepted
            rows, in the order of the file), billed_hashes, and input_tokens and output_tokens of the rows paid for.

    Returns:
        `batch_count` (accepted creates), `batch_rows` (their rows; none of a rejected batch), `batch_billed` (rows
        paid for; none before a batch has ended) and `paid_twice`: requests paid for more than once, in real time and
        batches together. Equal requests have equal hashes, so rows that say the same count as well.
    """
    batches = desk.accepted()
    for batch in batches:
        await desk.checked(batch)
    counts = Counter(map(bytes.fromhex, paid))
    billed = {batch.id: desk.billed(batch) for batch in batches}
    for hashes in billed.values():
        counts.update(hashes)
    summary: dict[str, Any] = {
        "batch_count": len(batches),
        "batch_rows": sum(_rows(batch) for batch in batches),
        "batch_billed": sum(map(len, billed.values())),
        "paid_twice": sum(count > 1 for count in counts.values()),
    }
    if with_entries:
        summary["batches"] = [_entry(desk, batch, billed[batch.id]) for batch in batches]
    return summary


def _rows(batch: Batch) -> int:
    return 0 if batch.problems or batch.rows is None else len(batch.rows)


def _entry(desk: Desk, batch: Batch, billed: list[bytes]) -> dict[str, Any]:
    count = _rows(batch)
    return {
        "id": batch.id,
        "provider": batch.provider,
        "model": batch.model,
        "status": desk.view(batch).status,
        "rows": count,
        "billed": len(billed),
        "request_hashes": [batch.rows.hash_of(row).hex() for row in range(count)] if batch.rows else [],
        "billed_hashes": [digest.hex() for digest in billed],
        **_tokens(desk, batch),
    }


def _tokens(desk: Desk, batch: Batch) -> dict[str, int]:
    """Return the tokens of the rows that are paid for, as their answers state them."""
    totals = {"input_tokens": 0, "output_tokens": 0}
    view = desk.view(batch)
    if batch.run is None or batch.rows is None or batch.problems or not view.has_ended:
        return totals
    for row in batch.run.billed(view.completed + view.failed):
        asked = batch.dialect.read_row(batch.rows.line(row, batch.spool), batch.order)
        if isinstance(asked, RowAsked):
            usage = answer(desk.rehearsal, asked, batch.order, batch.rows, row)[1].get("usage", {})
            totals["input_tokens"] += usage.get("prompt_tokens", usage.get("input_tokens", 0))
            totals["output_tokens"] += usage.get("completion_tokens", usage.get("output_tokens", 0))
    return totals
