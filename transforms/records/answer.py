"""Answers on their way from a call to a row. All pickle flat, see `records/request.py`."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from transforms.records.failure import KINDS, FailureKind, Stage
from transforms.records.quick import quick
from transforms.records.reply import Usage
from transforms.records.request import ModelRequest, request_from, unpack
from transforms.records.row import AskedRow, asked_from


@quick
@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """How one request ended, from a call now or from the ledger.

    Attributes:
        asked: the request, with its prompt (needed to build a repair); or as `pack` gives it, where it came out of a
            file and nobody has needed it yet. `request` gives it either way.
        kind: OK for text that can be parsed; any other kind ends the request.
        text: the answer's text when kind is OK, else what there is.
        reason: one sentence for people when kind is not OK.
        attempts: calls made for this request (all of them, the last included).
        call_id: the call that settled it; None when none was made.
        run_id: the run in which that call was made.
        reused: True when the call was made by an earlier run (or an earlier try of this bundle).
        response_model, usage, cost_usd: of the settling call.
    """

    asked: ModelRequest | bytes
    kind: FailureKind
    text: str | None
    reason: str | None
    attempts: int
    call_id: str | None
    run_id: str | None
    reused: bool
    response_model: str | None
    usage: Usage
    cost_usd: Decimal | None

    @property
    def request(self) -> ModelRequest:
        """The request; a packed one is unpacked at each look."""
        return unpack(self.asked) if isinstance(self.asked, bytes) else self.asked

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat; a packed request stays packed."""
        return _answer, (
            self.asked if isinstance(self.asked, bytes) else self.asked.flat(),
            self.kind.value,
            self.text,
            self.reason,
            self.attempts,
            self.call_id,
            self.run_id,
            self.reused,
            self.response_model,
            self.usage.flat(),
            self.cost_usd,
        )


def _answer(asked: tuple[Any, ...] | bytes, kind: str, *rest: Any) -> ModelAnswer:
    text, reason, attempts, call_id, run_id, reused, model, usage, cost_usd = rest
    return ModelAnswer(
        asked if isinstance(asked, bytes) else request_from(*asked),
        KINDS[kind],
        text,
        reason,
        attempts,
        call_id,
        run_id,
        reused,
        model,
        Usage(*usage),
        cost_usd,
    )


@quick
@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request left unsent because the run stopped; the next run of the job takes it up.

    Attributes:
        root_request_id: the MAIN request whose rows stay pending.
        reason: why, in one sentence.
        kind: the refusal that stopped the run, or None when the provider is dead.
        riders, crowded: the rows that wait, see ModelRequest.
    """

    root_request_id: str
    reason: str
    kind: FailureKind | None
    riders: tuple[AskedRow, ...] = ()
    crowded: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat."""
        riders = tuple([asked.flat() for asked in self.riders])
        kind = None if self.kind is None else self.kind.value
        return _pending, (self.root_request_id, self.reason, kind, riders, self.crowded)


def _pending(
    root_request_id: str, reason: str, kind: str | None, riders: tuple[tuple[Any, ...], ...], crowded: bool
) -> PendingRequest:
    asked = tuple([asked_from(*rider) for rider in riders])
    return PendingRequest(root_request_id, reason, None if kind is None else KINDS[kind], asked, crowded)


@quick
@dataclass(frozen=True, slots=True)
class RequestResult:
    """What the rows of one MAIN request get: a checked value or a failure.

    Exactly one of these holds: value_json is set (enriched), or kind is not OK (dead letter).

    Attributes:
        request_id: the MAIN request.
        value_json: the checked answer as JSON text (a JSON string when the job has no schema).
        stage: CALL or PARSE, where it failed.
        usage: summed over the calls that made this result (original and repair).
        cost_usd: summed likewise; None if any part is unknown.
        repaired: True when the repair lane gave the value.
        riders, crowded: the rows that wait for it, see ModelRequest.
    """

    request_id: str
    value_json: str | None
    kind: FailureKind
    stage: Stage | None
    reason: str | None
    attempts: int
    call_id: str | None
    run_id: str | None
    reused: bool
    response_model: str | None
    usage: Usage
    cost_usd: Decimal | None
    repaired: bool
    riders: tuple[AskedRow, ...] = ()
    crowded: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat."""
        return _result, (
            self.usage.flat(),
            self.kind.value,
            self.stage,
            self.request_id,
            self.value_json,
            self.reason,
            self.attempts,
            self.call_id,
            self.run_id,
            self.reused,
            self.response_model,
            self.cost_usd,
            self.repaired,
            tuple([asked.flat() for asked in self.riders]),
            self.crowded,
        )


def _result(usage: tuple[Any, ...], kind: str, stage: Stage | None, *rest: Any) -> RequestResult:
    request_id, value_json, reason, attempts, call_id, run_id, reused, response_model, cost_usd, *end = rest
    repaired, riders, crowded = end
    return RequestResult(
        request_id,
        value_json,
        KINDS[kind],
        stage,
        reason,
        attempts,
        call_id,
        run_id,
        reused,
        response_model,
        Usage(*usage),
        cost_usd,
        repaired,
        tuple([asked_from(*asked) for asked in riders]),
        crowded,
    )
