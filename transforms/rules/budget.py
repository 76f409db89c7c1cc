"""What a request may cost at most, and what a budget's log says is spent: the arithmetic of promise P6.

Amounts are whole numbers of a millionth of a millionth of a US dollar ("units"), so that adding and comparing them is
exact and quick; they are rounded against the spender. Pure: the caller brings the log's entries and the prices.

The rule: nothing is sent before its worst case is held, and a hold is made only if all that is charged before it and
the hold itself stay within the budget. Charged is what was settled and all that is still held. A hold is settled at
what the provider charges, or, where nobody knows, at its whole amount. So the sum of all that may have been billed
never passes the budget, whatever happens between, as long as no request costs more than its worst case.
"""

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Literal

from transforms.records.request import Prompt

#: Tokens that chat formats may add to a request, and to each of its turns; providers.md names three to seven a turn.
REQUEST_TOKENS = 32
TURN_TOKENS = 16
#: Tokens that a provider may add to explain an answer's schema to the model (Anthropic's and OpenAI's hidden
#: instructions have been seen at up to 530), beside the schema itself, whose bytes are counted.
SCHEMA_TOKENS = 600
#: A process takes its share of a budget in slices of this part of what is left: few enough to be cheap, and small
#: enough for several workers to share.
SLICE_DIVISOR = 32
#: No batch may hold more than this part of what a run began with, so that some can go while others run.
BATCH_DIVISOR = 4

_UP = Context(prec=60, rounding=ROUND_CEILING)
_DOWN = Context(prec=60, rounding=ROUND_FLOOR)
_ONE = Decimal(1)

What = Literal["slice", "batch", "run"]


def units_up(usd: Decimal) -> int:
    """Return an amount in units, rounded up: for what is spent."""
    return int(_UP.quantize(usd.scaleb(12, _UP), _ONE))


def units_down(usd: Decimal) -> int:
    """Return an amount in units, rounded down: for what may be spent."""
    return int(_DOWN.quantize(usd.scaleb(12, _DOWN), _ONE))


def usd_of(units: int) -> Decimal:
    """Return units as US dollars, exactly."""
    return Decimal(units).scaleb(-12, _UP)


def usd_text(units: int) -> str:
    """Return units as US dollars in plain digits, without trailing zeros."""
    text = format(usd_of(units), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True)
class WorstCase:
    """What a request may cost at most, in units.

    The input is counted in UTF-8 bytes: a tokenizer that works on bytes never makes more tokens than there are bytes.
    Not covered: what a provider adds beyond the margins above, answers longer than the limit that was sent, tools that
    bill by use, and prices that the price table does not have.

    Attributes:
        fixed_tokens: input tokens of a request without its texts, at most.
        input_units, output_units: of one token, by the highest rate there is.
        max_output_tokens: of one answer, at most.
    """

    fixed_tokens: int
    input_units: int
    output_units: int
    max_output_tokens: int

    def of_prompt(self, prompt: Prompt) -> int:
        """Return the worst case of a request made of a prompt."""
        tokens = self.fixed_tokens if prompt.system is None else self.fixed_tokens + _bytes(prompt.system) + TURN_TOKENS
        for _, text in prompt.turns:
            tokens += _bytes(text) + TURN_TOKENS
        return tokens * self.input_units + self.answer_units

    def of_bytes(self, byte_count: int, requests: int = 1, turns: int = 4) -> int:
        """Return the worst case of requests whose bodies, schema and all, have so many bytes together."""
        tokens = byte_count + requests * (REQUEST_TOKENS + SCHEMA_TOKENS + turns * TURN_TOKENS)
        return tokens * self.input_units + requests * self.answer_units

    @property
    def answer_units(self) -> int:
        """What the longest answer costs."""
        return self.max_output_tokens * self.output_units


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def worst_case(
    rates: tuple[Decimal, Decimal], body_bytes: int, max_output_tokens: int, *, has_schema: bool
) -> WorstCase:
    """Build the worst case of a job's requests.

    Args:
        rates: the highest USD per million input and output tokens (`PriceTable.ceiling`).
        body_bytes: of a request's body without its texts: the schema and the parameters.
        max_output_tokens: the limit that is sent, or the model's own.
        has_schema: the body carries a JSON Schema.
    """
    fixed = body_bytes + REQUEST_TOKENS + (SCHEMA_TOKENS if has_schema else 0)
    # USD per million tokens are millionths of a dollar per token, and so a million units each.
    per_token = [units_up(rate.scaleb(-6, _UP)) for rate in rates]
    return WorstCase(fixed, per_token[0], per_token[1], max_output_tokens)


#: Of a job whose requests have no price: next to nothing can be held for them, so a run stops only when the costs that
#: are known have used the budget up.
NO_WORST_CASE = WorstCase(0, 0, 1, 1)


@dataclass(frozen=True, slots=True)
class BudgetEntry:
    """One entry of the budget's log.

    Attributes:
        op: hold: the amount may be spent from now on. settle: this was charged of the holds of an account, or of none.
        id: of a hold `account` or `account#number`; of a settlement `account`. A second hold of one id, and a second
            settlement of one account, change nothing.
        units: the amount.
        run_id: the run that holds it; of a settlement, the run that settles.
        what: slice: of a process's real-time calls. batch: one create of a batch. run: a run without a budget.
        at_s: Unix seconds.
    """

    op: Literal["hold", "settle"]
    id: str
    units: int
    run_id: str
    what: What
    at_s: float


@dataclass(slots=True)
class BudgetState:
    """The log, folded: what is held, and what is charged in all and by run."""

    total: int = 0
    by_run: dict[str, int] = field(default_factory=dict)
    #: Account -> its open holds by id.
    _open: dict[str, dict[str, BudgetEntry]] = field(default_factory=dict)
    _settled: set[str] = field(default_factory=set)

    def apply(self, entry: BudgetEntry) -> None:
        """Take the next entry of the log in; a repeated one changes nothing."""
        account = account_of(entry.id)
        if account in self._settled:
            return
        if entry.op == "hold":
            holds = self._open.setdefault(account, {})
            if entry.id not in holds:
                holds[entry.id] = entry
                self._charge(entry.run_id, entry.units)
            return
        self._settled.add(account)
        # What is charged stays with the run that held it: a budget per run counts what that run set going.
        run_id = entry.run_id
        for held in self._open.pop(account, {}).values():
            run_id = held.run_id
            self._charge(run_id, -held.units)
        self._charge(run_id, entry.units)

    def charged(self, run_id: str | None) -> int:
        """Return what is settled and held, of one run or, with None, of all."""
        return self.total if run_id is None else self.by_run.get(run_id, 0)

    def held(self, entry_id: str) -> int | None:
        """Return the amount of an open hold; None where there is none."""
        entry = self._open.get(account_of(entry_id), {}).get(entry_id)
        return None if entry is None else entry.units

    def is_settled(self, entry_id: str) -> bool:
        """Say whether the account of an id is settled, so that no hold can be made in its name."""
        return account_of(entry_id) in self._settled

    def open_holds(self, what: What) -> list[BudgetEntry]:
        """Return the open holds of one kind."""
        return [entry for holds in self._open.values() for entry in holds.values() if entry.what == what]

    def _charge(self, run_id: str, units: int) -> None:
        self.total += units
        self.by_run[run_id] = self.by_run.get(run_id, 0) + units


def account_of(entry_id: str) -> str:
    """Return the account that a hold or a settlement belongs to."""
    return entry_id.partition("#")[0]


def slice_units(available: int, need: int) -> int:
    """Return how much a process takes of what is available, at least `need`; 0 when there is too little.

    A part of what is left, so that other workers find some; the last slice takes the rest, which would be of no use.
    """
    if need > available:
        return 0
    size = max(need, available // SLICE_DIVISOR)
    return available if available - size < need else size


def batch_limit(available: int, whole: int, requests: int) -> int | None:
    """Return what one batch may cost at most, so that a run can send some while others are under way.

    Args:
        available: when the run began.
        whole: a bound of what all that is to be split may cost.
        requests: how many that are.

    Returns:
        A quarter of what is available, or more where that would make crumbs of it (above 64 batches, or below one
        request), but never more than is available, for that could not go. None: not even one request can go, so there
        is no use in splitting.
    """
    one = whole // max(1, requests)
    return None if one > available else min(available, max(available // BATCH_DIVISOR, whole // 64, one))


def batch_charge(held: int | None, known: int, unknown_worst: int) -> int:
    """Return what a collected batch is settled at.

    Args:
        held: its hold; None when it was created without one.
        known: the sum of the costs that are known.
        unknown_worst: the worst case of the requests that may have been billed at nobody knows what.
    """
    charge = known + unknown_worst
    return charge if held is None else max(known, min(held, charge))
