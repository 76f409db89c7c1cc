"""Answers on their way from a call to a row."""

from dataclasses import dataclass
from decimal import Decimal

from transforms.records.failure import FailureKind, Stage
from transforms.records.reply import Usage
from transforms.records.request import ModelRequest


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """How one request ended, from a call now or from the ledger.

    Attributes:
        request: the request, with its prompt (needed to build a repair).
        kind: OK for text that can be parsed; any other kind ends the request.
        text: the answer's text when kind is OK, else what there is.
        reason: one sentence for people when kind is not OK.
        attempts: calls made for this request (all of them, the last included).
        call_id: the call that settled it; None when none was made.
        run_id: the run in which that call was made.
        reused: True when the call was made by an earlier run (or an earlier try of this bundle).
        response_model, usage, cost_usd: of the settling call.
    """

    request: ModelRequest
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


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request left unsent because the run stopped; the next run of the job takes it up.

    Attributes:
        root_request_id: the MAIN request whose rows stay pending.
        reason: why, in one sentence.
        kind: the refusal that stopped the run, or None when the provider is dead.
    """

    root_request_id: str
    reason: str
    kind: FailureKind | None


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
