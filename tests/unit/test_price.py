"""Usage becomes dollars (rules/price.py); expected numbers are worked by hand from the providers' price lists."""

import pickle
import socket
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as TableUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import set_custom_snapshot
from hypothesis import given
from hypothesis import strategies as st

from transforms.records.call import CostSource
from transforms.records.usage import Usage
from transforms.rules.price import PriceTable

AT = datetime(2026, 6, 1, tzinfo=UTC)
PRICES = PriceTable()


@pytest.mark.parametrize(
    ("provider", "model", "usage", "usd"),
    [
        # 0.15 in, 0.075 cached, 0.60 out: 1,000 x 0.15 + 50 x 0.60 = 180 millionths
        pytest.param("openai", "gpt-4o-mini-2024-07-18", Usage(1000, 50), "0.00018", id="openai"),
        # 800 x 0.15 + 200 x 0.075 + 50 x 0.60 = 165 millionths; reasoning is part of the output
        pytest.param("openai", "gpt-4o-mini", Usage(1000, 50, 200, None, 20), "0.000165", id="openai, cached"),
        # no price for writing to the cache: 1,000 x 0.15 + 50 x 0.60
        pytest.param("openai", "gpt-4o-mini", Usage(1000, 50, None, 300), "0.00018", id="openai, cache write"),
        # 1 in, 0.10 read, 1.25 write, 5 out: 500 x 1 + 300 x 0.10 + 200 x 1.25 + 10 x 5 = 830 millionths
        pytest.param("anthropic", "claude-haiku-4-5-20251001", Usage(1000, 10, 300, 200), "0.00083", id="anthropic, cached"),
        # up to 200,000 input tokens 3, 0.30, 3.75, 15: 198,500 x 3 + 1,000 x 0.30 + 500 x 3.75 + 10 x 15
        pytest.param("anthropic", "claude-sonnet-4-5", Usage(200_000, 10, 1000, 500), "0.597825", id="at the step"),
        # above 6, 0.60, 7.50, 22.50, for all of it: 198,501 x 6 + 1,000 x 0.60 + 500 x 7.50 + 10 x 22.50
        pytest.param("anthropic", "claude-sonnet-4-5", Usage(200_001, 10, 1000, 500), "1.195581", id="above the step"),
        # 2.50 in, 10 out
        pytest.param("azure.ai.openai", "gpt-4o", Usage(1000, 100), "0.0035", id="azure"),
        pytest.param("openrouter", "openai/gpt-4o-mini", Usage(1000, 50), "0.00018", id="openrouter without a cost"),
        pytest.param("openai", "gpt-4o-mini", Usage(0, 0), "0", id="nothing used"),
    ],
)  # fmt: skip
def test_a_call_costs_what_the_price_list_says(provider, model, usage, usd):
    """Every token is priced once, cached and written ones at their own rate."""
    cost = PRICES.cost(provider, model, None, usage, None, at=AT)
    assert cost.usd == Decimal(usd)
    assert cost.source is CostSource.PRICE_TABLE
    assert cost.usd.as_tuple().exponent == -18


def test_the_providers_own_cost_comes_first():
    """What the provider charged is the truth, tokens or not; 18 places, half to even."""
    cost = PRICES.cost("openrouter", "openai/gpt-4o-mini", None, Usage(), Decimal("0.0000000000000000025"))
    assert (cost.usd, cost.source) == (Decimal("0.000000000000000002"), CostSource.PROVIDER)


def test_the_model_that_answered_is_priced_before_the_one_asked_for():
    """A router's choice counts; an answering model that no list knows falls back to the one asked for."""
    usage = Usage(1_000_000, 0)
    assert PRICES.cost("openai", "gpt-4o", "gpt-4o-mini", usage, None, at=AT).usd == Decimal("0.15")
    assert PRICES.cost("openai", "gpt-4o", "gpt-unheard-of", usage, None, at=AT).usd == Decimal("2.5")


@pytest.mark.parametrize(
    ("provider", "model", "usage", "reason"),
    [
        pytest.param("openai_compatible", "m", Usage(1, 1), "no prices are known for provider openai_compatible", id="provider"),
        pytest.param("openai", "gpt-unheard-of", Usage(1, 1), "no model gpt-unheard-of of openai", id="model"),
        pytest.param("openai", "gpt-4o", Usage(None, 1), "no token counts", id="no input count"),
        pytest.param("openai", "gpt-4o", Usage(1, None), "no token counts", id="no output count"),
        pytest.param("openai", "gpt-4o", Usage(10, 1, 11), "contradict", id="more cached than read"),
        pytest.param("openrouter", "allenai/molmo-7b-d:free", Usage(10, 1), "lacks a price", id="no prices in the table"),
    ],
)  # fmt: skip
def test_a_cost_that_cannot_be_known_is_null_with_a_reason(provider, model, usage, reason):
    """Never 0, never a guess."""
    cost = PRICES.cost(provider, model, None, usage, None, at=AT)
    assert (cost.usd, cost.source) == (None, CostSource.UNKNOWN)
    assert reason in cost.reason


def test_a_provider_cost_that_is_no_number_is_unknown():
    """NaN in a response does not become money."""
    assert PRICES.cost("openrouter", "m", None, Usage(1, 1), Decimal("NaN")).source is CostSource.UNKNOWN


def test_a_model_on_this_machine_costs_nothing_and_says_so():
    """The embedded model is not billed, with or without counts."""
    cost = PRICES.cost("llama_cpp", "smollm2", None, Usage(), None)
    assert (cost.usd, cost.source, cost.reason) == (0, CostSource.NOT_BILLED, "runs on this machine")


COUNT = st.integers(0, 2_000_000)
MODELS = st.sampled_from(
    [
        ("openai", "openai", "gpt-4o-mini"),
        ("openai", "openai", "gpt-5"),
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("anthropic", "anthropic", "claude-opus-4-1"),
        ("azure.ai.openai", "azure", "gpt-4.1"),
        ("openrouter", "openrouter", "anthropic/claude-sonnet-4.5"),
    ]
)
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MODELS, COUNT, COUNT, COUNT, COUNT, MOMENTS)
def test_our_arithmetic_equals_that_of_genai_prices(model, fresh, read, write, output, at):
    """The quick multiplication gives the library's number, to the last digit, at any time."""
    name, provider_id, ref = model
    usage = Usage(fresh + read + write, output, read, write)
    theirs = calc_price(
        TableUsage(
            input_tokens=usage.input_tokens, output_tokens=output, cache_read_tokens=read, cache_write_tokens=write
        ),
        ref,
        provider_id=provider_id,
        genai_request_timestamp=at,
    )
    assert PRICES.cost(name, ref, None, usage, None, at=at).usd == theirs.total_price


def test_rates_for_a_plan_are_per_million_tokens():
    """Input and output list prices; nothing for what the table does not have."""
    assert PRICES.rates("openai", "gpt-4o-mini") == (Decimal("0.15"), Decimal("0.6"))
    assert PRICES.rates("azure_openai", "gpt-4o") == (Decimal("2.5"), Decimal(10))
    assert PRICES.rates("llama_cpp", "any") == (0, 0)
    assert PRICES.rates("openai", "gpt-unheard-of") is None
    assert PRICES.rates("openai_compatible", "m") is None


def test_prices_are_the_bundled_ones_and_no_connection_is_made(monkeypatch):
    """Neither a snapshot that another library installed nor the network has a say."""

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    set_custom_snapshot(object())
    try:
        assert PriceTable().rates("openai", "gpt-4o-mini") == (Decimal("0.15"), Decimal("0.6"))
    finally:
        set_custom_snapshot(None)


def test_a_price_table_pickles_empty():
    """What was looked up stays in its process."""
    copy = pickle.loads(pickle.dumps(PRICES))  # noqa: S301 - our own bytes
    assert copy.rates("openai", "gpt-4o-mini") == PRICES.rates("openai", "gpt-4o-mini")
    assert len(pickle.dumps(PRICES)) < 200


@pytest.mark.parametrize(
    ("tier", "usd"),
    [
        pytest.param(None, "0.00018", id="not named"),
        pytest.param("default", "0.00018", id="openai standard"),
        pytest.param("standard", "0.00018", id="anthropic standard"),
        pytest.param("auto", "0.00018", id="auto"),
        pytest.param("priority", None, id="dearer"),
        pytest.param("flex", None, id="cheaper"),
    ],
)
def test_only_the_standard_tier_has_a_price(tier, usd):
    """Another tier's price is not in the table, so the cost is unknown and says so; never the standard price."""
    cost = PRICES.cost("openai", "gpt-4o-mini", None, Usage(1000, 50), None, service_tier=tier, at=AT)
    if usd is None:
        assert (cost.usd, cost.source) == (None, CostSource.UNKNOWN)
        assert cost.reason == f"service tier {tier} is not in the price list"
    else:
        assert cost.usd == Decimal(usd)


def test_a_stated_cost_holds_at_any_tier():
    """The provider knows what its tier costs, and this machine has none."""
    stated = PRICES.cost("openrouter", "m", None, Usage(1, 1), Decimal("0.5"), service_tier="priority")
    assert (stated.usd, stated.source) == (Decimal("0.5"), CostSource.PROVIDER)
    assert PRICES.cost("llama_cpp", "m", None, Usage(1, 1), None, service_tier="x").source is CostSource.NOT_BILLED
