"""The fault plan: which requests go wrong, and how; a pure function of request, attempt and seed.

A plan is written as text (`rate_limit=0.05,reset=0.01,storm=2s-5s`), as YAML or as JSON:

    rate_limit: 0.05
    wrong_json: 0.02
    sticky: [wrong_json]
    storms:
      - {from_s: 2, to_s: 5}
      - {from_request: 0, to_request: 20, every: 500}
    batch: {lost_create: 1, expire_at: 0.6}
"""

from bisect import bisect_right
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.sandbox.batch_faults import BatchFaults
from pipelines.sandbox.draws import unit


class FaultKind(StrEnum):
    """What can go wrong. "Paid" means that the request is on the bill."""

    RATE_LIMIT = "rate_limit"  # 429, the wait said in varied forms or not at all
    SERVER_ERROR = "server_error"  # 500
    BAD_GATEWAY = "bad_gateway"  # 502 with an HTML body
    OVERLOADED = "overloaded"  # 503, Anthropic 529
    RESET = "reset"  # connection reset after the work was done; paid
    HANG = "hang"  # no reply until the client goes away; paid
    CUT_BODY = "cut_body"  # connection closed inside the body; paid
    WRONG_JSON = "wrong_json"  # 200, text that is not what the schema asks for; paid; only with a schema
    REFUSAL = "refusal"  # 200, the model declines; paid
    TRUNCATION = "truncation"  # 200, cut off at the token limit; paid
    CONTENT_FILTER = "content_filter"  # Azure: prompt filter 400 (unpaid) or filtered answer (paid); others: the latter
    ERROR_IN_200 = "error_in_200"  # OpenRouter and the Responses API: 200 that holds an error; unpaid
    EMPTY_CHOICES = "empty_choices"  # 200 without an answer; unpaid
    SLOW = "slow"  # ten times the latency; paid


#: These are properties of the request rather than of the moment: by default another try meets them again.
STICKY = (FaultKind.WRONG_JSON, FaultKind.REFUSAL, FaultKind.TRUNCATION, FaultKind.CONTENT_FILTER)

Probability = Annotated[float, Field(ge=0, le=1)]


class Storm(BaseModel):
    """A time, or a range of requests, in which everything is answered 429.

    Seconds and request numbers count from the moment the plan was put in place. With `every`, the range
    recurs: request number modulo `every` is compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_s: Annotated[float, Field(ge=0)] | None = None
    to_s: float | None = None
    from_request: Annotated[int, Field(ge=0)] | None = None
    to_request: int | None = None
    every: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_window(self) -> Self:
        in_time = self.from_s is not None and self.to_s is not None and self.from_s < self.to_s
        in_requests = (
            self.from_request is not None and self.to_request is not None and self.from_request < self.to_request
        )
        if in_time == in_requests:
            raise ValueError("a storm needs from_s < to_s, or from_request < to_request, and not both")
        return self

    def rages(self, elapsed_s: float, index: int) -> bool:
        """Tell whether the request with this number, at this time, falls into the window."""
        if self.from_s is not None and self.to_s is not None:
            return self.from_s <= elapsed_s < self.to_s
        place = index % self.every if self.every else index
        return (self.from_request or 0) <= place < (self.to_request or 0)


class FaultPlan(BaseModel):
    """Probabilities per kind, in [0, 1]; their sum is at most 1.

    Attributes:
        sticky: kinds that are decided by the request alone, so that every attempt at it meets them.
        storms: windows in which everything is answered 429.
        retry_after_s: the wait that 429s of faults and storms ask for, in seconds.
        dead: everything is answered 503.
        batch: what goes wrong with batches (batch_faults.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_limit: Probability = 0
    server_error: Probability = 0
    bad_gateway: Probability = 0
    overloaded: Probability = 0
    reset: Probability = 0
    hang: Probability = 0
    cut_body: Probability = 0
    wrong_json: Probability = 0
    refusal: Probability = 0
    truncation: Probability = 0
    content_filter: Probability = 0
    error_in_200: Probability = 0
    empty_choices: Probability = 0
    slow: Probability = 0
    sticky: tuple[FaultKind, ...] = STICKY
    storms: tuple[Storm, ...] = ()
    retry_after_s: Annotated[float, Field(gt=0)] = 1.0
    dead: bool = False
    batch: BatchFaults = BatchFaults()

    @model_validator(mode="after")
    def _sums_to_one_at_most(self) -> Self:
        total = sum(getattr(self, kind) for kind in FaultKind)
        if total > 1.0000001:
            raise ValueError(f"the probabilities add up to {total:.3f}; they must not pass 1")
        return self


class FaultDecider:
    """A plan made ready to decide quickly, with the seed."""

    __slots__ = ("_changing", "_seed", "_sticky", "plan")

    def __init__(self, plan: FaultPlan, seed: int) -> None:
        self.plan = plan
        self._seed = seed
        kinds = [kind for kind in FaultKind if getattr(plan, kind) > 0]
        self._sticky = _ladder(plan, [kind for kind in kinds if kind in plan.sticky], 1.0)
        room = 1.0 - sum(getattr(plan, kind) for kind in kinds if kind in plan.sticky)
        self._changing = _ladder(plan, [kind for kind in kinds if kind not in plan.sticky], room)

    def decide(self, request_hash: bytes, attempt: int) -> FaultKind | None:
        """Return the fault this attempt (1, 2, ...) at this request meets, or None.

        Guarantees that over many requests each kind is met with its probability at the first attempt.
        """
        return self._pick(self._sticky, request_hash, 0) or self._pick(self._changing, request_hash, attempt)

    def storm(self, elapsed_s: float, index: int) -> bool:
        """Tell whether a storm rages over this request."""
        return any(storm.rages(elapsed_s, index) for storm in self.plan.storms)

    def _pick(self, ladder: tuple[list[float], list[FaultKind]], request_hash: bytes, attempt: int) -> FaultKind | None:
        ends, kinds = ladder
        if not kinds:
            return None
        place = bisect_right(ends, unit("fault", self._seed, request_hash, attempt))
        return kinds[place] if place < len(kinds) else None


def _ladder(plan: FaultPlan, kinds: list[FaultKind], room: float) -> tuple[list[float], list[FaultKind]]:
    """Return the kinds with the upper ends of their shares of [0, 1).

    Sticky kinds are drawn first; what is left of the range (`room`) stretches to the whole for the others.
    """
    return list(accumulate(getattr(plan, kind) / max(room, 1e-12) for kind in kinds)), kinds


#: What says something without a value.
_FLAGS = frozenset({"dead", *(f"batch_{name}" for name in BatchFaults.model_fields)})


def load_plan(text: str) -> FaultPlan:
    """Return the plan that a `--faults` value describes.

    Args:
        text: a file's path (YAML or JSON), a JSON object, or `kind=probability` pairs with commas between; also
            `dead`, `retry_after_s=0.2`, `storm=2s-5s`, `storm=100-200`, `storm=0-20/500` (every 500 requests),
            `sticky=refusal+truncation`, `sticky=none`, and `batch_` before a name of the batch section
            (`batch_lost_create=1`).

    Raises:
        ValueError: the text is no plan; the sentence names the key and what it may be.
    """
    text = text.strip()
    if not text:
        return FaultPlan()
    if text.startswith("{"):
        values: Any = yaml.safe_load(text)
    elif "=" not in text and text not in _FLAGS:
        path = Path(text)
        if not path.is_file():
            raise ValueError(f"--faults {text!r} is neither a file nor a list such as rate_limit=0.05,reset=0.01")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    else:
        values = _from_pairs(text)
    return plan_from(values)


def plan_from(values: Any) -> FaultPlan:
    """Return the plan of a parsed YAML or JSON document.

    Raises:
        ValueError: an unknown kind, a probability outside [0, 1], a bad storm.
    """
    if not isinstance(values, dict):
        raise ValueError(  # noqa: TRY004 - the value is wrong, whatever its type
            f"a fault plan is an object such as {{rate_limit: 0.05}}, not {values!r}"
        )
    try:
        return FaultPlan.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "plan"
        section = BatchFaults if where.startswith("batch.") else FaultPlan
        known = f"; known are {', '.join(section.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise ValueError(f"fault plan, {where}: {first['msg']}{known}") from None


def _from_pairs(text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in text.split(","):
        name, _, value = (part.strip() for part in pair.partition("="))
        if name == "storm":
            values.setdefault("storms", []).append(_storm_from(value))
        elif name == "sticky":
            values["sticky"] = [] if value == "none" else value.split("+")
        elif name == "dead":
            values["dead"] = value or True
        elif name.startswith("batch_"):
            values.setdefault("batch", {})[name.removeprefix("batch_")] = value or True
        elif name:
            values[name] = value
    return values


def _storm_from(text: str) -> dict[str, Any]:
    window, _, every = text.partition("/")
    first, _, last = window.partition("-")
    if first.endswith("s") or last.endswith("s"):
        return {"from_s": first.rstrip("s"), "to_s": last.rstrip("s")}
    return {"from_request": first, "to_request": last, **({"every": every} if every else {})}
