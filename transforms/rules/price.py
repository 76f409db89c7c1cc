"""Usage becomes US dollars: the only file that knows genai-prices.

The provider's own figure comes first; else genai-prices' bundled table (never one fetched at run time), by the model
that answered or else the one asked for. What can't be priced is unknown, with a reason: never 0, never a guess.
Standard prices in real time, and batch prices where the table states them for that provider's model itself. A batch
is never priced as real time, nor at a usual discount: genai-prices alone would give the standard price for batches of
Azure and OpenRouter, and for all of them before the day from which it knows a batch price.

genai-prices finds the model and its rates; the multiplication is done here because its own takes longer than the rest
of a row's path. A property test holds the two equal.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cached_property
from typing import Any, Literal

from transforms.records.call import Cost, CostSource
from transforms.records.usage import Usage

#: How a request was run: by a call of its own, or by the provider's batch API.
Processing = Literal["real_time", "batch"]

#: Provider names, OpenTelemetry's and the job file's, to genai-prices' ids.
_PROVIDER_IDS = {
    "openai": "openai",
    "azure.ai.openai": "azure",
    "azure_openai": "azure",
    "anthropic": "anthropic",
    "openrouter": "openrouter",
}
_LOCAL = "llama_cpp"
#: What providers call the tier that the price list is for.
_STANDARD_TIERS = frozenset({None, "default", "standard", "auto"})
#: Anthropic names "batch" as the tier of a batch's answers (providers.md 4.2); others the standard one, or none.
_TIERS = {"real_time": _STANDARD_TIERS, "batch": _STANDARD_TIERS | {"batch"}}
_BATCH = {"processing": "batch"}
_MILLION = Decimal(1_000_000)
_PLACES = Decimal(1).scaleb(-18)
# Wide enough that products and sums of any token count and price are exact; only the last step rounds.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_NEWEST = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Rate:
    """USD per million tokens: from the highest tier whose start the whole input exceeds, else the base."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...]

    def at(self, input_tokens: int) -> Decimal:
        for start, price in self.tiers:
            if input_tokens > start:
                return price
        return self.base


@dataclass(frozen=True, slots=True)
class _Rates:
    """The token rates of one model; None where the table has no such price."""

    input: _Rate | None
    output: _Rate | None
    cache_read: _Rate | None
    cache_write: _Rate | None
    reasoning: _Rate | None


@dataclass(frozen=True, slots=True)
class _Model:
    """A model of the table. batch: its batch prices, from whatever day; () where the provider's own list has none."""

    info: Any
    batch: tuple[Any, ...]


class PriceTable:
    """Prices calls; remembers the models it has looked up. Pickles without them."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], _Model | None] = {}
        self._rates: dict[tuple[int, ...], tuple[Any, _Rates]] = {}

    def cost(
        self,
        provider_name: str,
        price_model: str,
        response_model: str | None,
        usage: Usage,
        provider_cost_usd: Decimal | None,
        *,
        service_tier: str | None = None,
        at: datetime | None = None,
        processing: Processing = "real_time",
    ) -> Cost:
        """Return what one call, or one request of a batch, cost.

        Args:
            provider_name: `Provider.name`, or the job file's provider.
            price_model: the model asked for, as price lists name it (`Provider.price_model`).
            response_model: the model that answered, or None.
            usage: token counts; input_tokens includes cached ones (providers.md 12.5).
            provider_cost_usd: what the provider itself says it charged, or None.
            service_tier: the tier that ran the call, as the provider named it, or None.
            at: when the call was made, with its time zone; None takes the newest price in the table.
            processing: "batch" for a request of a provider's batch. Its rates are the table's batch rates; a rate that
                these don't name is the standard one (OpenAI's cached input, for many models). A table that knows a
                batch price from some day on says nothing of the days before: a call then has an unknown cost, and
                every later one the price of that day.

        Returns:
            USD with 18 places, rounded half to even; or an unknown cost and the reason. Never raises.
        """
        if provider_cost_usd is not None:
            if not provider_cost_usd.is_finite():
                return _unknown("the provider stated a cost that is not a number")
            return Cost(_EXACT.quantize(provider_cost_usd, _PLACES), CostSource.PROVIDER)
        if provider_name == _LOCAL:
            return Cost(Decimal(0).quantize(_PLACES), CostSource.NOT_BILLED, "runs on this machine")
        if service_tier not in _TIERS[processing] and provider_name in _PROVIDER_IDS:
            return _unknown(f"service tier {service_tier} is not in the price list")
        return self._table_cost(provider_name, (response_model, price_model), usage, at, processing)

    def rates(
        self,
        provider_name: str,
        model: str,
        at: datetime | None = None,
        *,
        processing: Processing = "real_time",
    ) -> tuple[Decimal, Decimal] | None:
        """Return USD per million input and output tokens for a small request, or None when the model has no price.

        A local model costs nothing: (0, 0). `at` and `processing` as in `cost`.
        """
        if provider_name == _LOCAL:
            return Decimal(0), Decimal(0)
        found = self._find(provider_name, model)
        rates = None if found is None else self._rates_of(found, at or _NEWEST, processing)
        if rates is None or rates.input is None or rates.output is None:
            return None
        return rates.input.base, rates.output.base

    def ceiling(
        self, provider_name: str, model: str, processing: Processing = "real_time"
    ) -> tuple[Decimal, Decimal] | None:
        """Return the most that a million input tokens, and output tokens, may cost, whatever they are and whenever.

        The highest of all rates of each side (tiers, cache writes, reasoning) and of all days that the table knows: for
        worst cases. A batch without a price of its own costs what real time does, at most. None: no price is known.
        A local model costs nothing: (0, 0).
        """
        if provider_name == _LOCAL:
            return Decimal(0), Decimal(0)
        found = self._find(provider_name, model)
        if found is None:
            return None
        prices = found.info.prices
        ever = [one.prices for one in prices] if isinstance(prices, list) else [prices]
        if processing == "batch" and self._rates_of(found, _NEWEST, processing) is not None:
            ever = [found.info.get_prices(_NEWEST, _BATCH)]
        every = [_read_rates(one) for one in ever]
        sides = (
            _highest(rate for rates in every for rate in (rates.input, rates.cache_read, rates.cache_write)),
            _highest(rate for rates in every for rate in (rates.output, rates.reasoning)),
        )
        return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])

    def _table_cost(
        self,
        provider_name: str,
        models: tuple[str | None, str],
        usage: Usage,
        at: datetime | None,
        processing: Processing,
    ) -> Cost:
        if provider_name not in _PROVIDER_IDS:
            return _unknown(f"no prices are known for provider {provider_name}")
        if usage.input_tokens is None or usage.output_tokens is None:
            return _unknown("the provider gave no token counts")
        found = self._find(provider_name, models[0]) or self._find(provider_name, models[1])
        if found is None:
            return _unknown(f"the price table has no model {models[0] or models[1]} of {provider_name}")
        rates = self._rates_of(found, at or _NEWEST, processing)
        if rates is None:
            return _unknown(_no_batch_price(found, f"{models[0] or models[1]} of {provider_name}"))
        return _price(rates, usage, usage.input_tokens, usage.output_tokens)

    def _find(self, provider_name: str, model: str | None) -> _Model | None:
        provider_id = _PROVIDER_IDS.get(provider_name)
        if provider_id is None or not model:
            return None
        key = (provider_id, model)
        if key not in self._models:
            self._models[key] = self._look_up(provider_id, model)
        return self._models[key]

    def _look_up(self, provider_id: str, model: str) -> _Model | None:
        try:
            provider, info = self._snapshot.find_provider_model(model, None, provider_id, None)
        except LookupError:
            return None
        # Where a provider's list lacks a model, another's is taken; what that one's batches cost says nothing here.
        is_own = any(info is own for own in provider.models)
        variants = (info.price_variants or ()) if is_own else ()
        return _Model(info, tuple(variant for variant in variants if variant.when == _BATCH))

    def _rates_of(self, model: _Model, at: datetime, processing: Processing) -> _Rates | None:
        """Return the rates at a time, read once for each set of prices; None where no batch price is known then."""
        prices = model.info.get_prices(at)
        if processing == "real_time":
            return self._read_once((id(prices),), prices)
        active = [one for one in model.batch if one.constraint is None or one.constraint.active(at)]
        if not active:
            return None
        key = (id(prices), *map(id, active))
        known = self._rates.get(key)
        return known[1] if known else self._read_once(key, model.info.get_prices(at, _BATCH))

    def _read_once(self, key: tuple[int, ...], prices: Any) -> _Rates:
        known = self._rates.get(key)
        if known is None:
            known = self._rates[key] = (prices, _read_rates(prices))
        return known[1]

    @cached_property
    def _snapshot(self) -> Any:
        # The bundled data itself, not genai-prices' current snapshot, which another library may keep updated.
        from genai_prices.data import providers
        from genai_prices.data_snapshot import DataSnapshot

        return DataSnapshot(providers=providers, from_auto_update=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was looked up."""
        return {"_models": {}, "_rates": {}}


def _price(rates: _Rates, usage: Usage, input_tokens: int, output_tokens: int) -> Cost:
    """Multiply every token once, at the rate of the most specific price it has."""
    read = usage.cache_read_input_tokens or 0 if rates.cache_read else 0
    write = usage.cache_write_input_tokens or 0 if rates.cache_write else 0
    reasoning = usage.reasoning_output_tokens or 0 if rates.reasoning else 0
    parts = (
        (rates.input, input_tokens - read - write),
        (rates.output, output_tokens - reasoning),
        (rates.cache_read, read),
        (rates.cache_write, write),
        (rates.reasoning, reasoning),
    )
    total = Decimal(0)
    for rate, count in parts:
        if count < 0:
            return _unknown("the token counts contradict each other: a part is larger than the whole")
        if count and rate is None:
            return _unknown("the price table lacks a price for input or output tokens of this model")
        if count and rate is not None:
            total = _EXACT.fma(rate.at(input_tokens), Decimal(count), total)
    return Cost(_EXACT.quantize(_EXACT.divide(total, _MILLION), _PLACES), CostSource.PRICE_TABLE)


def _highest(rates: Iterable[_Rate | None]) -> Decimal | None:
    return max(
        (price for rate in rates if rate for price in (rate.base, *(tier[1] for tier in rate.tiers))), default=None
    )


def _read_rates(prices: Any) -> _Rates:
    return _Rates(
        input=_read_rate(prices.input_mtok),
        output=_read_rate(prices.output_mtok),
        cache_read=_read_rate(prices.cache_read_mtok),
        cache_write=_read_rate(prices.cache_write_mtok),
        reasoning=_read_rate(prices.output_reasoning_mtok),
    )


def _read_rate(price: Any) -> _Rate | None:
    if price is None:
        return None
    if isinstance(price, Decimal):
        return _Rate(price, ())
    return _Rate(price.base, tuple((tier.start, tier.price) for tier in reversed(price.tiers)))


def _no_batch_price(model: _Model, name: str) -> str:
    days = [one.constraint.start_date for one in model.batch if hasattr(one.constraint, "start_date")]
    if days:
        return f"the price table has a batch price of {name} only from {min(days)} on"
    return f"the price table has no batch price of {name}"


def _unknown(reason: str) -> Cost:
    return Cost(None, CostSource.UNKNOWN, reason)
