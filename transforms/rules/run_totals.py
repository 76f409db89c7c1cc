"""Adding up a run's calls, exactly: counts, tokens and money in Decimal."""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from transforms.records.call import CallRecord, CallStatus, CallType


@dataclass(slots=True)
class CallTotals:
    """What a run's LLM calls come to. Adding is exact and in any order gives the same.

    Attributes:
        sent, succeeded, failed: LLM calls (every try counts); failed = sent - succeeded.
        cost_usd: sum over the calls whose cost is known; unknown_cost counts the others.
        failures: calls by kind, of those that failed.
    """

    sent: int = 0
    succeeded: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unknown_cost: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    cost_reasons: Counter[str] = field(default_factory=Counter)

    def add(self, record: CallRecord) -> "CallTotals":
        """Add one call in place; returns itself. HTTP calls (no answer of a row) don't count."""
        if record.call_type is not CallType.LLM:
            return self
        self.sent += 1
        if record.status is CallStatus.SUCCESS:
            self.succeeded += 1
        else:
            self.failed += 1
            self.failures[str(record.kind)] += 1
        self.input_tokens += record.input_tokens or 0
        self.output_tokens += record.output_tokens or 0
        if record.cost_usd is None:
            self.unknown_cost += 1
            self.cost_reasons[record.cost_reason or "no reason given"] += 1
        else:
            self.cost_usd += record.cost_usd
        return self

    def merge(self, other: "CallTotals") -> "CallTotals":
        """Add another sum in place; returns itself."""
        self.sent += other.sent
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cost_usd += other.cost_usd
        self.unknown_cost += other.unknown_cost
        self.failures.update(other.failures)
        self.cost_reasons.update(other.cost_reasons)
        return self

    def to_json(self) -> dict[str, object]:
        """Return the sums as JSON values; money as a string, so that no digit is lost."""
        return {
            "sent": self.sent,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": format(self.cost_usd, "f"),
            "unknown_cost": self.unknown_cost,
            "failures": dict(self.failures),
            "cost_reasons": dict(self.cost_reasons),
        }
