"""What the answers ledger already holds of a provider's batch, whichever run wrote it.

Collecting may be cut off and begun again, in the same run or a later one: what was recorded is neither recorded nor
paid for twice, and calls go on being numbered where they stopped.
"""

from dataclasses import dataclass, field
from decimal import Decimal

from transforms.records.failure import FailureKind
from transforms.storage.ledger import SettledAnswer, better, segments, settled_call
from transforms.storage.ledger_lines import BROKEN_LINE, broken_line, decimal_or_none, parse_line, settled_kind
from transforms.storage.objects import open_read


@dataclass(slots=True)
class RecordedCalls:
    """Calls of one batch in the ledger.

    Attributes:
        next_index: the call_index after the highest.
        custom_ids: requests with an LLM call of this batch.
        settled: of these, by request_id, what can be reused.
        kinds: how each of the others ended, by custom_id.
        costs: what each cost, by custom_id, where that is known.
        costs_by_run: their sums by the run that recorded them, in US dollars.
    """

    next_index: int = 0
    custom_ids: set[str] = field(default_factory=set)
    settled: dict[str, SettledAnswer] = field(default_factory=dict)
    kinds: dict[str, FailureKind] = field(default_factory=dict)
    costs: dict[str, Decimal] = field(default_factory=dict)
    costs_by_run: dict[str, Decimal] = field(default_factory=dict)


def recorded_calls(ledger: str, batch_id: str) -> RecordedCalls:
    """Return what all segments hold of one batch; lines of other batches are passed over unread.

    Raises:
        InternalError: a line of the batch is damaged.
    """
    found = RecordedCalls()
    needle = b'"batch_id":"' + batch_id.encode() + b'"'
    for path in segments(ledger):
        with open_read(path) as file:
            for number, line in enumerate(file, 1):
                if needle in line and line.endswith(b'"type":"call"}\n'):
                    try:
                        _take(found, batch_id, line)
                    except BROKEN_LINE as error:
                        raise broken_line(path, number, error) from error
    return found


def _take(found: RecordedCalls, batch_id: str, line: bytes) -> None:
    call = parse_line(line)
    if call["batch_id"] != batch_id:
        return
    found.next_index = max(found.next_index, call["call_index"] + 1)
    if call["custom_id"] is None:
        return
    found.custom_ids.add(call["custom_id"])
    if (cost := decimal_or_none(call["cost_usd"])) is not None:
        found.costs[call["custom_id"]] = cost
        found.costs_by_run[call["run_id"]] = found.costs_by_run.get(call["run_id"], Decimal(0)) + cost
    answer = settled_call(call)
    if answer is None:
        found.kinds[call["custom_id"]] = settled_kind(call)
    else:
        known = found.settled.get(answer.request_id, answer)
        found.settled[answer.request_id] = better(known, answer)
