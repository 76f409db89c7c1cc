"""How much a number of requests may cost and how long it may take: ranges, with their assumptions said."""

from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any

from transforms.records.settings import Job
from transforms.rules.price import PriceTable, Processing

#: Output tokens of the shortest useful answer.
_SHORT_ANSWER_TOKENS = 8
#: Seconds a short and a long answer take; the width covers small and large hosted models.
_FAST_S = 0.5
_SLOW_S = 5.0
_MILLION = Decimal(1_000_000)
_FREE = (Decimal(0), Decimal(0))
_NOTHING: dict[str, Any] = {"low": "0", "expected": "0", "high": "0", "unknown": None}


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to send, with their estimated tokens; output_high is None without a limit.

    Attributes:
        output_expected: None where only the bounds are known: then nothing is expected in dollars either.
        input_error: share by which input_tokens may be wrong; it widens the range of dollars.
    """

    requests: int
    input_tokens: int
    output_low: int
    output_high: int | None
    output_expected: int | None = None
    input_error: float = 0.0

    @property
    def input_low(self) -> int:
        """Input tokens less the error."""
        return int(self.input_tokens * (1 - min(self.input_error, 1.0)))

    @property
    def input_high(self) -> int:
        """Input tokens plus the error."""
        return ceil(self.input_tokens * (1 + self.input_error))


def output_range(max_output_tokens: int | None, requests: int) -> tuple[int, int | None]:
    """Return the least and the most output tokens of so many requests; no most without max_output_tokens."""
    least = _SHORT_ANSWER_TOKENS if max_output_tokens is None else min(_SHORT_ANSWER_TOKENS, max_output_tokens)
    return least * requests, None if max_output_tokens is None else max_output_tokens * requests


def expected_output(per_request: float, max_output_tokens: int | None, requests: int) -> int:
    """Return the output tokens that so many requests are expected to give, within `output_range`."""
    low, high = output_range(max_output_tokens, requests)
    expected = max(low, round(per_request * requests))
    return expected if high is None else min(expected, high)


def estimate_cost(
    provider_name: str, price_model: str, load: Load, processing: Processing = "real_time"
) -> dict[str, Any]:
    """Return {"low", "expected", "high", "unknown"}: US dollars as text, and why a bound is null.

    Short answers and fewer input tokens by their error give the low bound, answers of max_output_tokens and more
    input tokens the high one. Retries and repairs, which a run may need on top, are not in it. A batch has a cost only
    where the price table knows batch prices of the model.
    """
    if load.requests == 0:
        return _NOTHING
    prices = PriceTable()
    rates = prices.rates(provider_name, price_model, processing=processing)
    if rates is None:
        what = "model" if prices.rates(provider_name, price_model) is None else "batch price of"
        why = f"the price table has no {what} {price_model} of {provider_name}"
        return {"low": None, "expected": None, "high": None, "unknown": why}
    if rates == _FREE:
        return _NOTHING
    return {
        "low": _price(rates, load.input_low, load.output_low),
        "expected": _price(rates, load.input_tokens, load.output_expected),
        "high": _price(rates, load.input_high, load.output_high),
        "unknown": None if load.output_high is not None else "no upper bound without model.params.max_output_tokens",
    }


def estimate_time(job: Job, load: Load) -> dict[str, Any]:
    """Return {"low_s", "high_s", "limited_by", "assumption"}: how long the calls may take, from the job's limits."""
    lanes = max(1, min(_lanes(job), load.requests))
    rounds = -(-load.requests // lanes)
    spans = {
        "in flight": (rounds * _FAST_S, rounds * _SLOW_S),
        "pool.requests_per_minute": _per_minute(load.requests, load.requests, job.pool.requests_per_minute),
        "pool.tokens_per_minute": _per_minute(
            load.input_tokens + load.output_low,
            load.input_tokens + (load.output_high or load.output_low),
            job.pool.tokens_per_minute,
        ),
    }
    limited_by = max(spans, key=lambda name: spans[name][1])
    what = f"{lanes:,} in flight" if limited_by == "in flight" else limited_by
    return {
        "low_s": round(max(low for low, _ in spans.values()), 1),
        "high_s": round(max(high for _, high in spans.values()), 1),
        "limited_by": what,
        "assumption": f"an answer takes {_FAST_S:g} to {_SLOW_S:g} s, and nothing is retried",
    }


def _lanes(job: Job) -> int:
    if job.model.provider == "llama_cpp" and job.model.base_url is None:
        return min(job.pool.max_in_flight, job.model.slots)
    return job.pool.max_in_flight


def _per_minute(low: int, high: int, limit: int | None) -> tuple[float, float]:
    return (0.0, 0.0) if limit is None else (60 * low / limit, 60 * high / limit)


def _price(rates: tuple[Decimal, Decimal], input_tokens: int, output_tokens: int | None) -> str | None:
    if output_tokens is None:
        return None
    usd = (rates[0] * input_tokens + rates[1] * output_tokens) / _MILLION
    return format(usd.normalize() if usd else Decimal(0), "f")
