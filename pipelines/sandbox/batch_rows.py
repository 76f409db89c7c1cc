"""The rows of a batch: checked once after acceptance, answered whenever results are asked for.

An answer is a function of the inner body, the path it would have in real time, and the seed: the same code gives it
that answers real-time requests. Of each row only some 40 bytes are kept; the rest is read from the request file again.
"""

import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Protocol

from pipelines.sandbox.batch_spool import Spool
from pipelines.sandbox.draws import derive
from pipelines.sandbox.exchange import Problem, Refused
from pipelines.sandbox.faults import FaultKind
from pipelines.sandbox.rehearsal import Admitted, Rehearsal, hash_request
from pipelines.sandbox.routes import Route

_REFUSALS = {
    FaultKind.RATE_LIMIT: Problem.RATE_LIMIT,
    FaultKind.SERVER_ERROR: Problem.SERVER_ERROR,
    FaultKind.BAD_GATEWAY: Problem.SERVER_ERROR,
    FaultKind.OVERLOADED: Problem.OVERLOADED,
}
#: Answers with status 200 that hold no answer; nobody pays for them.
_UNPAID = frozenset({FaultKind.ERROR_IN_200, FaultKind.EMPTY_CHOICES})
_FAULTS = (None, *FaultKind)


class RowEnd(StrEnum):
    """What became of a row."""

    ANSWERED = "answered"  # it ran: there is a status and a body, perhaps an error's
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Outcome(IntEnum):
    """What running a row comes to. PAID and UNPAID have status 200, FAILED any other."""

    PAID = 0
    UNPAID = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asked for when it created a batch, in the engine's terms.

    Attributes:
        endpoint: as the client wrote it.
        model: the one model of the batch where the create says it (OpenRouter), else None.
        metadata: given back with the batch.
        headers: of the create, those that rows inherit (anthropic-version), names in lower case.
        input_file_id: of the uploaded file, None for inline creates.
        most_rows: a batch with more is rejected (too_many_tasks); None for no limit.
        extra: whatever the provider's part wants to find again.
    """

    endpoint: str = ""
    model: str | None = None
    metadata: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    input_file_id: str | None = None
    most_rows: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowAsked:
    """A request line, read.

    Attributes:
        route: where its body goes in real time (`routes.find_route`); path: the path it has there, without query.
        body: exactly as it would be sent in real time, model included.
        query: of the real-time URL (Azure's api-version).
    """

    custom_id: str
    route: Route
    path: str
    body: dict[str, Any]
    query: str = ""


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a batch is rejected. line: 1-based line of the request file, None for the whole."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row of the results, before it is put into a provider's line.

    Attributes:
        end: EXPIRED and CANCELLED rows have neither status nor body.
        status: HTTP status; 0 for the fault status_zero (body None then).
        body: the provider's reply as in real time, or its error object for a status other than 200.
        id: 32 hexadecimal digits, unique per result.
    """

    custom_id: str
    end: RowEnd
    status: int | None
    body: dict[str, Any] | None
    id: str


class Dialect(Protocol):
    """How a provider writes the rows of its batches.

    Attributes:
        provider: its name, as in House.name.
        rejects_bad_rows: one bad row rejects the whole batch (OpenAI, Azure, OpenRouter); else that row is answered
            with its error (Anthropic).
        expires: batches end by themselves after 24 hours (all but Azure).
        one_model: all rows must name the same model.
    """

    provider: str
    rejects_bad_rows: bool
    expires: bool
    one_model: bool

    def read_row(self, line: bytes, order: Order) -> RowAsked | RowProblem:
        """Read a line of the request file (without newline). Must give the same for the same line each time.

        A RowProblem rejects the batch; its `line` is filled in by the caller. Where bad rows don't reject
        (rejects_bad_rows False), every line must be readable: check ids and shape at the create.
        """
        ...

    def row_problem(self, refused: Refused) -> RowProblem:
        """Put what real time would refuse (a 400 or 404) into the words of a rejected batch."""
        ...

    def write_row(self, result: RowResult, order: Order) -> bytes:
        """Return the result's JSON on one line, without newline."""
        ...


class Rows:
    """What is kept of each row, in the order of the request file.

    Attributes:
        created: Unix seconds that all answers give as their time: results are the same bytes whenever they are asked for.
    """

    def __init__(self) -> None:
        self.created = int(time.time())
        self.offsets = array("Q")
        self.lengths = array("I")
        self.hashes = bytearray()
        self.faults = bytearray()
        self.tries = bytearray()
        self.outcomes = bytearray()
        self.tokens = 0
        self.model = ""

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, offset: int, length: int, judged: "Judged") -> None:
        """Append a row."""
        self.offsets.append(offset)
        self.lengths.append(length)
        self.hashes += judged.request_hash
        self.faults.append(_FAULTS.index(judged.fault))
        self.tries.append(min(judged.attempt, 255))
        self.outcomes.append(judged.outcome)
        self.tokens += judged.tokens

    def hash_of(self, row: int) -> bytes:
        """Return the 16 bytes of a row's request hash."""
        return bytes(self.hashes[16 * row : 16 * row + 16])

    def fault_of(self, row: int) -> FaultKind | None:
        """Return the fault a row was found to meet."""
        return _FAULTS[self.faults[row]]

    def line(self, row: int, spool: Spool) -> bytes:
        """Return a row's line from the request file."""
        return spool.read(self.offsets[row], self.lengths[row])


@dataclass(frozen=True, slots=True)
class Judged:
    """What the check finds out about one row."""

    request_hash: bytes
    attempt: int
    fault: FaultKind | None
    outcome: Outcome
    tokens: int


def judge(rehearsal: Rehearsal, asked: RowAsked, order: Order) -> tuple[Judged, Refused | None]:
    """Return what becomes of a row when it runs, and why real time would refuse it, if it would."""
    admitted = rehearsal.judge_row(asked.route, asked.path, asked.query, order.headers, asked.body)
    if isinstance(admitted, Refused):
        return Judged(hash_request(asked.path, asked.body), 1, None, Outcome.FAILED, 0), admitted
    if _refusal(rehearsal, asked, admitted):
        outcome = Outcome.FAILED
    else:
        outcome = Outcome.UNPAID if admitted.fault in _UNPAID else Outcome.PAID
    return Judged(admitted.request_hash, admitted.attempt, admitted.fault, outcome, admitted.ask.input_tokens), None


def answer(rehearsal: Rehearsal, asked: RowAsked, order: Order, rows: Rows, row: int) -> tuple[int, dict[str, Any]]:
    """Return status and body of a row that runs: what real time would reply to the same body.

    A schema that no value satisfies shows only here: its row gets the 400 of real time.
    """
    house = asked.route.house
    ask = rehearsal.read_row(asked.route, asked.query, order.headers, asked.body)
    exchange_id = f"{derive('row', rehearsal.seed, rows.hash_of(row), rows.tries[row]):024x}"
    if isinstance(ask, Refused):
        return house.refuse(ask, exchange_id)
    fault = rows.fault_of(row)
    admitted = Admitted(ask, rows.hash_of(row), rows.tries[row], fault, {})
    refused = _refusal(rehearsal, asked, admitted)
    if refused:
        status, body = house.refuse(refused, exchange_id)
        return (502 if fault is FaultKind.BAD_GATEWAY else status), body
    try:
        completion = rehearsal.complete(admitted, rows.created)
    except ValueError as error:
        return house.refuse(Refused(Problem.INVALID, f"Invalid schema: {error}"), exchange_id)
    assert asked.route.api is not None  # noqa: S101 - a question has a format
    return 200, house.dress(asked.route.api.reply(completion), completion)


def _refusal(rehearsal: Rehearsal, asked: RowAsked, admitted: Admitted) -> Refused | None:
    if admitted.fault in _REFUSALS:
        wait_s = rehearsal.decider.plan.retry_after_s
        return Refused(_REFUSALS[admitted.fault], model=admitted.ask.model, wait_s=wait_s)
    return rehearsal.prompt_refusal(asked.route.house, admitted)
