"""What the sandbox decides about a request, before and without any network.

A question passes, in this order: key, JSON, version, format, credit, model name, storm, rate limit, fault plan. The
first that objects has the word, as with the providers.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import blake2b
from typing import Any

import orjson

from pipelines.sandbox.answers import answer_value, sentence
from pipelines.sandbox.draws import Draws, derive, unit
from pipelines.sandbox.exchange import (
    NO_SUCH_MODEL,
    Ask,
    Completion,
    Finish,
    House,
    Problem,
    Refused,
    tokens_of,
)
from pipelines.sandbox.faults import FaultDecider, FaultKind, FaultPlan
from pipelines.sandbox.limits import Limiter, Verdict
from pipelines.sandbox.routes import Route
from pipelines.sandbox.spoil import spoil

BAD_KEY, NO_CREDIT_KEY = "bad-key", "no-credit"

_FINISHES = {
    FaultKind.REFUSAL: Finish.REFUSAL,
    FaultKind.TRUNCATION: Finish.LENGTH,
    FaultKind.CONTENT_FILTER: Finish.FILTERED,
    FaultKind.ERROR_IN_200: Finish.ERROR,
    FaultKind.EMPTY_CHOICES: Finish.EMPTY,
}
_PROBLEMS = {
    FaultKind.RATE_LIMIT: Problem.RATE_LIMIT,
    FaultKind.SERVER_ERROR: Problem.SERVER_ERROR,
    FaultKind.OVERLOADED: Problem.OVERLOADED,
}
_NO_LIMITS = Verdict(0.0, None, None)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A question that is let in.

    Attributes:
        request_hash: of path and body in canonical form, 16 bytes.
        attempt: 1 for the first try at this request.
        fault: what is going to go wrong, None for nothing.
        headers: the rate-limit headers.
    """

    ask: Ask
    request_hash: bytes
    attempt: int
    fault: FaultKind | None
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A question that is refused, with headers that say when to come again. cause: for the statistics."""

    refused: Refused
    headers: dict[str, str]
    cause: str | None = None


class Rehearsal:
    """Everything that decides: plan, seed, limits, and how often each request was tried."""

    def __init__(
        self, plan: FaultPlan, seed: int, requests_per_minute: int | None, tokens_per_minute: int | None
    ) -> None:
        self.seed = seed
        self._per_minute = requests_per_minute, tokens_per_minute
        self.has_limits = requests_per_minute is not None or tokens_per_minute is not None
        self.clear()
        self.set_plan(plan)

    def set_plan(self, plan: FaultPlan) -> None:
        """Put a plan in place; its storms count from now."""
        self.decider = FaultDecider(plan, self.seed)
        self._since_s = time.monotonic()
        self._index = 0

    def clear(self) -> None:
        """Forget all attempts and fill all buckets."""
        self._attempts: dict[bytes, int] = {}
        self._limiters: dict[tuple[str, str], Limiter] = {}

    def judge(
        self, route: Route, path: str, query: str, headers: Mapping[str, str], raw: bytes
    ) -> Admitted | TurnedAway:
        """Decide about a question."""
        key = route.house.key(headers)
        if key is None or key == BAD_KEY:
            return TurnedAway(Refused(Problem.MISSING_KEY if key is None else Problem.BAD_KEY), {})
        try:
            body = orjson.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return TurnedAway(Refused(Problem.INVALID, "We could not parse the JSON body of your request."), {})
        ask = self._read(route, query, headers, body)
        if isinstance(ask, Refused):
            return TurnedAway(ask, {})
        request_hash = hash_request(path, body)
        if key == NO_CREDIT_KEY:
            return TurnedAway(Refused(Problem.NO_CREDIT, variant=request_hash[0]), {})
        if ask.model == NO_SUCH_MODEL:
            return TurnedAway(Refused(Problem.NO_SUCH_MODEL, model=ask.model), {})
        return self._pass_limits(route, ask, request_hash)

    def judge_row(
        self, route: Route, path: str, query: str, headers: Mapping[str, str], body: dict[str, Any]
    ) -> Admitted | Refused:
        """Decide about a request inside a batch, which no key, limit or storm of real time concerns.

        Changes nothing, so that the same row can be looked at again; `count_try` says that it was tried. All kinds of
        fault are left in `fault`, those that refuse included. A Refused is for what is wrong with the request itself.
        """
        ask = self.read_row(route, query, headers, body)
        if isinstance(ask, Refused):
            return ask
        request_hash = hash_request(path, body)
        attempt = self._attempts.get(request_hash, 0) + 1
        fault = self.decider.decide(request_hash, attempt)
        return Admitted(ask, request_hash, attempt, fault if fault and _applies(fault, route, ask) else None, {})

    def read_row(self, route: Route, query: str, headers: Mapping[str, str], body: dict[str, Any]) -> Ask | Refused:
        """Return what a request inside a batch asks for, or what is wrong with it."""
        ask = self._read(route, query, headers, body)
        if isinstance(ask, Ask) and ask.model == NO_SUCH_MODEL:
            return Refused(Problem.NO_SUCH_MODEL, model=ask.model)
        return ask

    def count_try(self, request_hash: bytes, attempt: int) -> None:
        """Note that a request was tried, so that the next attempt at it draws its fault anew."""
        self._attempts[request_hash] = attempt

    def _read(self, route: Route, query: str, headers: Mapping[str, str], body: dict[str, Any]) -> Ask | Refused:
        objection = route.house.objection(headers, query, body)
        if objection:
            return objection
        if route.api is None:
            return Refused(Problem.NO_SUCH_PATH)
        return route.api.read(body, route.deployment)

    def _pass_limits(self, route: Route, ask: Ask, request_hash: bytes) -> Admitted | TurnedAway:
        index = self._index
        self._index += 1
        if self.decider.plan.storms and self.decider.storm(time.monotonic() - self._since_s, index):
            return self._too_many(ask, request_hash, index, "storm")
        headers: dict[str, str] = {}
        if self.has_limits:
            verdict = self._verdict(route.house, ask)
            headers = route.house.limit_headers(verdict, time.time())
            if verdict.wait_s > 0:
                refused = Refused(Problem.RATE_LIMIT, model=ask.model, wait_s=verdict.wait_s)
                return TurnedAway(refused, headers, "limit")
        attempt = self._attempts.get(request_hash, 0) + 1
        self._attempts[request_hash] = attempt
        fault = self.decider.decide(request_hash, attempt)
        if fault and not _applies(fault, route, ask):
            fault = None
        if fault in _PROBLEMS:
            return self._fault_refusal(fault, ask, request_hash, attempt)
        return Admitted(ask, request_hash, attempt, fault, headers)

    def _verdict(self, house: House, ask: Ask) -> Verdict:
        name = house.name, ask.model
        limiter = self._limiters.get(name)
        if limiter is None:
            limiter = Limiter(*self._per_minute, house.window_s, time.monotonic())
            self._limiters[name] = limiter
        # The answer's limit counts in full at admission (providers.md 3.6).
        return limiter.admit(ask.input_tokens + (ask.max_tokens or 0), time.monotonic())

    def _fault_refusal(self, fault: FaultKind, ask: Ask, request_hash: bytes, attempt: int) -> TurnedAway:
        if fault is FaultKind.RATE_LIMIT:
            return self._too_many(ask, request_hash, attempt, fault)
        return TurnedAway(Refused(_PROBLEMS[fault], model=ask.model), {}, fault)

    def _too_many(self, ask: Ask, request_hash: bytes, turn: int, cause: str) -> TurnedAway:
        variant = derive("429", self.seed, request_hash, turn)
        wait_s = self.decider.plan.retry_after_s
        refused = Refused(Problem.RATE_LIMIT, model=ask.model, wait_s=wait_s, variant=variant)
        return TurnedAway(refused, wait_headers(variant // 16, wait_s, time.time()), cause)

    def latency_s(self, admitted: Admitted, latency_s: float, jitter_s: float) -> float:
        """Return how long the answer takes: fixed part, jitter of this attempt, tenfold when slow."""
        wait = latency_s
        if jitter_s:
            wait += jitter_s * unit("latency", self.seed, admitted.request_hash, admitted.attempt)
        return wait * 10 if admitted.fault is FaultKind.SLOW else wait

    def prompt_refusal(self, house: House, admitted: Admitted) -> Refused | None:
        """Return the 400 of a prompt filter, which half of Azure's content_filter faults are."""
        if admitted.fault is FaultKind.CONTENT_FILTER and house.filters_prompts:
            variant = derive("filter", self.seed, admitted.request_hash)
            if variant % 2:
                return Refused(Problem.PROMPT_FILTERED, variant=variant // 2)
        return None

    def complete(self, admitted: Admitted, created: int | None = None) -> Completion:
        """Return the answer; text and tokens are a function of request and seed alone.

        Args:
            admitted: what is answered.
            created: Unix seconds that the answer gives as its time; None for now.

        Raises:
            ValueError: no answer can satisfy the schema.
        """
        ask, fault = admitted.ask, admitted.fault
        draws = Draws(derive("answer", self.seed, admitted.request_hash))
        text = _text(ask, fault, draws)
        finish = _FINISHES.get(fault, Finish.STOP) if fault else Finish.STOP
        tokens = tokens_of(len(text))
        if finish in (Finish.LENGTH, Finish.FILTERED, Finish.REFUSAL, Finish.ERROR):
            text = text[: len(text) // 2]
            tokens = tokens_of(len(text))
        elif ask.max_tokens is not None and tokens > ask.max_tokens:
            text, tokens, finish = text[: 4 * ask.max_tokens], ask.max_tokens, Finish.LENGTH
        exchange = derive("id", self.seed, admitted.request_hash, admitted.attempt)
        return Completion(
            f"{exchange:024x}",
            int(time.time()) if created is None else created,
            ask.model,
            text,
            finish,
            ask.input_tokens,
            tokens,
            draws.below(1 << 16),
        )


def hash_request(path: str, body: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that equal requests share, whatever the order of their keys. path: of real time, no query.

    OpenRouter's `provider` says where a request may run, not what it asks; in a batch it stands outside of the rows.
    """
    if "provider" in body:
        body = {name: value for name, value in body.items() if name != "provider"}
    digest = blake2b(path.encode() + b"\n" + orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=16)
    return digest.digest()


def wait_headers(form: int, wait_s: float, now_s: float) -> dict[str, str]:
    """Return one of the five forms in which servers say how long to wait, the last being silence."""
    match form % 5:
        case 0:
            return {"retry-after": str(math.ceil(wait_s))}
        case 1:
            return {"retry-after": f"{wait_s:.3f}"}
        case 2:
            return {"retry-after": formatdate(math.ceil(now_s + wait_s), usegmt=True)}
        case 3:
            return {"retry-after-ms": str(math.ceil(wait_s * 1000))}
        case _:
            return {}


def _applies(fault: FaultKind, route: Route, ask: Ask) -> bool:
    """Tell whether a kind can happen at all with this provider and request."""
    if fault is FaultKind.ERROR_IN_200:
        return route.house.has_error_in_200 or (route.api is not None and route.api.has_error_in_200)
    return fault is not FaultKind.WRONG_JSON or ask.schema is not None


def _text(ask: Ask, fault: FaultKind | None, draws: Draws) -> str:
    if ask.schema is None:
        return sentence(draws)
    value = answer_value(ask.schema, draws)
    if fault is FaultKind.WRONG_JSON:
        return spoil(value, ask.schema, draws)
    return orjson.dumps(value).decode()
