"""What the ledger and the audit say about one exchange.

Pure: the caller brings the clock's readings and the bytes. Payloads obey the job's audit settings here, once, so
that neither the ledger nor the audit tables ever hold what the job asked to leave out. The answer's own text stays
in the ledger (`CallRecord.text`) whatever the settings say: without it nothing could be reused (P3, P8).
"""

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import orjson

from transforms.records.call import CallRecord, CallStatus, CallType, Cost, CostSource
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpResponse, Reply
from transforms.records.request import ModelRequest
from transforms.rules.hidden import CUT, blank_cut
from transforms.rules.price import PriceTable, Processing
from transforms.rules.redaction import REDACTED, Redactor

#: So many different costs of a batch's requests are remembered; most have the token counts of another.
_COSTS_KEPT = 10_000
_LLM, _SUCCESS, _ERROR, _OK = CallType.LLM, CallStatus.SUCCESS, CallStatus.ERROR, FailureKind.OK
_CUT_OFF = frozenset({FailureKind.EXPIRED, FailureKind.CANCELLED})
_OUR_WORDS = frozenset({*_CUT_OFF, FailureKind.MISSING_RESULT, FailureKind.RESULTS_GONE})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_BILLED = Cost(Decimal(0), CostSource.NOT_BILLED, "the provider refused the request before running it")
_NOT_RUN = Cost(Decimal(0), CostSource.NOT_BILLED, "the batch ended without running the request")
_MAYBE_BILLED = Cost(None, CostSource.UNKNOWN, "the reply was lost: the provider may have run the request")
_UNUSABLE = Cost(None, CostSource.UNKNOWN, "the provider answered without a usable answer and may have charged for it")


class Exchange(NamedTuple):
    """The facts of one try; a tuple because there is one for each row.

    Attributes:
        shown_body: the request body as audit may show it (redacted fields left out).
        response: None when none came back.
        waited_ms: how long the request was held back before this try (limits, back-off), milliseconds.
        processing: "batch" when the request ran in a provider's batch, which has prices of its own.
    """

    request: ModelRequest
    batch_id: str
    call_index: int
    call_id: str
    custom_id: str
    attempt: int
    started_at_us: int
    latency_ms: float
    waited_ms: float
    shown_body: bytes
    response: HttpResponse | None
    outcome: Reply | CallError
    provider_request_id: str | None
    processing: Processing = "real_time"


@dataclass(frozen=True, slots=True)
class CallRecorder:
    """Builds the records of one run's calls to one model."""

    run_id: str
    provider_name: str
    request_model: str
    price_model: str
    payloads: Literal["full", "hash", "none"]
    redactor: Redactor
    prices: PriceTable
    _batch_costs: dict[tuple[object, ...], Cost] = field(default_factory=dict, repr=False, compare=False)

    def record(self, exchange: Exchange) -> CallRecord:
        """Return the ledger line of one exchange; never raises on what a provider sent."""
        request, response, outcome = exchange.request, exchange.response, exchange.outcome
        reply = outcome if isinstance(outcome, Reply) else None
        is_ok, hashes, usage = outcome.kind is _OK, request.hashes, outcome.usage
        cost = self._cost(exchange)
        request_json, response_json = self._payloads(exchange)
        return CallRecord.of(
            {
                "call_id": exchange.call_id,
                "run_id": self.run_id,
                "batch_id": exchange.batch_id,
                "call_index": exchange.call_index,
                "call_type": _LLM,
                "custom_id": exchange.custom_id,
                "request_id": request.request_id,
                "root_request_id": request.root_request_id,
                "lane": request.lane,
                "attempt": exchange.attempt,
                "status": _SUCCESS if is_ok else _ERROR,
                "kind": outcome.kind,
                "http_status": response.status if response else None,
                "provider_request_id": self._own(exchange.provider_request_id),
                "started_at_us": exchange.started_at_us,
                "latency_ms": exchange.latency_ms,
                "waited_ms": exchange.waited_ms,
                "request_json": request_json,
                "response_json": response_json,
                "error_json": None if is_ok else self._error(exchange),
                "provider_name": self.provider_name,
                "request_model": self.request_model,
                "response_model": reply.response_model if reply else self._own(outcome.response_model),
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cache_read_input_tokens": usage.cache_read_input_tokens,
                "cache_write_input_tokens": usage.cache_write_input_tokens,
                "reasoning_output_tokens": usage.reasoning_output_tokens,
                "finish_reasons": (str(reply.finish_reason),) if reply else (),
                "cost_usd": cost.usd,
                "cost_source": cost.source,
                "cost_reason": self._own(cost.reason),
                "prompt_sha256": hashes.prompt,
                "template_sha256": hashes.template,
                "variables_sha256": hashes.variables,
                "lookup_sha256": hashes.lookup,
                "text": reply.text if reply else None,
                "type": "call",
            }
        )

    def shown(self, text: str, request: ModelRequest) -> str:
        """Return a sentence about a request as people may see it."""
        return self.redactor.text(blank(text, request.redacted_values))

    def clean(self, outcome: Reply | CallError) -> Reply | CallError:
        """Return a reply without the run's own secrets, before its text travels on into records and rows (P9)."""
        if isinstance(outcome, CallError):
            return outcome
        # What is in neither of them joined is in neither; looked for once, as next to never any is found.
        both = f"{outcome.text}\n{outcome.response_model}"
        if self.redactor.own(both) == both:
            return outcome
        return replace(outcome, text=self._own(outcome.text), response_model=self._own(outcome.response_model))

    def _own(self, text: str | None) -> str | None:
        return None if text is None else self.redactor.own(text)

    def _cost(self, exchange: Exchange) -> Cost:
        """Price an answer, and an error that says what it used: it was run; any other error by what became of it."""
        outcome = exchange.outcome
        if isinstance(outcome, CallError) and not _was_run(outcome):
            if not outcome.may_be_billed:
                return _NOT_RUN if outcome.kind in _CUT_OFF else _NOT_BILLED
            answered = exchange.response is not None and 200 <= exchange.response.status < 300
            return _UNUSABLE if answered else _MAYBE_BILLED
        if exchange.processing == "real_time":
            return self._price(exchange)
        # All requests of a batch have one time, so that equal token counts have equal costs.
        facts = (outcome.response_model, outcome.service_tier, outcome.provider_cost_usd)
        key = (outcome.usage.flat(), *facts, exchange.started_at_us, exchange.processing)
        cost = self._batch_costs.get(key)
        if cost is None:
            if len(self._batch_costs) >= _COSTS_KEPT:
                self._batch_costs.clear()
            cost = self._batch_costs[key] = self._price(exchange)
        return cost

    def _price(self, exchange: Exchange) -> Cost:
        outcome = exchange.outcome
        return self.prices.cost(
            self.provider_name,
            self.price_model,
            outcome.response_model,
            outcome.usage,
            outcome.provider_cost_usd,
            service_tier=outcome.service_tier,
            at=_EPOCH + timedelta(microseconds=exchange.started_at_us),
            processing=exchange.processing,
        )

    def _payloads(self, exchange: Exchange) -> tuple[str | None, str | None]:
        """Return request and response as the ledger and the audit may show them."""
        response = exchange.response
        if self.payloads != "full" or response is None:
            return self._payload(exchange.shown_body), None if response is None else self._payload(response.body)
        request_text = _text(exchange.shown_body)
        hidden = exchange.request.redacted_values
        response_text = _blank_body(response.body, hidden) if hidden else _text(response.body)
        # Looking for secrets costs per text more than per character, and next to never finds one.
        both = f"{request_text}\n{response_text}"
        if self.redactor.text(both) == both:
            return request_text, response_text
        return self.redactor.text(request_text), self.redactor.text(response_text)

    def _payload(self, body: bytes) -> str | None:
        if self.payloads == "none":
            return None
        if self.payloads == "hash":
            return orjson.dumps({"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}).decode()
        return self.redactor.text(_text(body))

    def _error(self, exchange: Exchange) -> str:
        outcome, hidden = exchange.outcome, exchange.request.redacted_values
        message = reason_of(outcome) if self.payloads == "full" or _is_ours(exchange) else not_kept(self.payloads)
        error: dict[str, object] = {"kind": str(outcome.kind), "message": message}
        if isinstance(outcome, CallError):
            error |= {"code": outcome.code, "retry_after_s": outcome.retry_after_s}
        if pattern := _pattern(hidden):
            error = _blank_strings(error, pattern)
        return self.redactor.text(orjson.dumps(error).decode())


def not_kept(payloads: str) -> str:
    """Say in place of a provider's words, which may quote a prompt, that the job does not keep them."""
    return f"not kept (audit.payloads: {payloads})"


def _is_ours(exchange: Exchange) -> bool:
    """Whether why a call failed is told in our words alone."""
    outcome = exchange.outcome
    if isinstance(outcome, Reply):
        return not outcome.explanation
    return exchange.response is None and (exchange.processing == "real_time" or outcome.kind in _OUR_WORDS)


def _was_run(error: CallError) -> bool:
    usage = error.usage
    return error.provider_cost_usd is not None or not (usage.input_tokens is None or usage.output_tokens is None)


def blank(text: str, hidden: tuple[str, ...]) -> str:
    """Replace every occurrence of the hidden values by "[redacted]"; blank values are not looked for.

    Values are found as they are, escaped in JSON, and escaped in JSON inside a JSON string (an answer that quotes
    them, in a reply that quotes the answer); each with other than ASCII characters kept or escaped.
    """
    pattern = _pattern(hidden)
    if pattern is None:
        return text
    shown = pattern.sub(REDACTED, text)
    return blank_cut(shown, {form for value in hidden for form in _forms(value)}) if CUT in shown else shown


def _pattern(hidden: tuple[str, ...]) -> re.Pattern[str] | None:
    if not hidden:
        return None
    forms = {form for value in hidden if value.strip() for form in _forms(value)}
    if not forms:
        return None
    # The longest first, so that a value that contains another goes as a whole.
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form))))


def _forms(value: str) -> set[str]:
    once = {json.dumps(value, ensure_ascii=escaped)[1:-1] for escaped in (True, False)}
    return {value} | once | {json.dumps(form, ensure_ascii=False)[1:-1] for form in once}


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")


def _blank_body(body: bytes, hidden: tuple[str, ...]) -> str:
    """Return a body as text without the hidden values; JSON stays JSON: its strings are blanked, however escaped."""
    text = _text(body)
    pattern = _pattern(hidden)
    if pattern is None:
        return text
    try:
        return orjson.dumps(_blank_strings(orjson.loads(body), pattern)).decode()
    except (ValueError, TypeError, RecursionError):  # not JSON, or nested deeper than JSON is written
        return pattern.sub(REDACTED, text)


def _blank_strings(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(REDACTED, value)
    if isinstance(value, dict):
        return {pattern.sub(REDACTED, key): _blank_strings(member, pattern) for key, member in value.items()}
    if isinstance(value, list):
        return [_blank_strings(member, pattern) for member in value]
    return value


def reason_of(outcome: Reply | CallError) -> str:
    """Say in one sentence why an outcome that is not OK is not OK."""
    if isinstance(outcome, CallError):
        return outcome.message
    if outcome.kind is FailureKind.TRUNCATED:
        return "the answer was cut at the output limit; raise model.params.max_output_tokens"
    word = "the model refused to answer" if outcome.kind is FailureKind.REFUSAL else "the provider's filter cut it out"
    return f"{word}: {outcome.explanation}" if outcome.explanation else word
