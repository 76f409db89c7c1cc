"""Batches have prices of their own (rules/price.py); expected numbers are worked by hand from the providers' lists."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as TableUsage
from genai_prices import calc_price
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from transforms.records.call import CostSource
from transforms.records.usage import Usage
from transforms.rules.price import PriceTable

#: The day from which the table knows most batch prices of OpenAI and Anthropic.
KNOWN_FROM = datetime(2026, 10, 14, tzinfo=UTC)
DAY_BEFORE = datetime(2026, 10, 13, 23, 59, 59, tzinfo=UTC)
AT = datetime(2026, 11, 21, tzinfo=UTC)
PRICES = PriceTable()


def batch_cost(provider, model, usage=None, stated=None, **options):
    """Return the cost of one request of a batch."""
    options = {"at": AT, "processing": "batch"} | options
    return PRICES.cost(provider, model, None, usage or Usage(1000, 50), stated, **options)


@pytest.mark.parametrize(
    ("provider", "model", "usage", "usd"),
    [
        # 0.075 in, 0.30 out: 1,000 x 0.075 + 50 x 0.30 = 90 millionths, half of real time
        pytest.param("openai", "gpt-4o-mini-2024-07-18", Usage(1000, 50), "0.00009", id="openai"),
        # 1 in, 4 out, cached input stays at the standard 0.50: 800 x 1 + 200 x 0.50 + 50 x 4 = 1,100 millionths
        pytest.param("openai", "gpt-4.1", Usage(1000, 50, 200), "0.0011", id="openai, cached at the standard rate"),
        # 0.625 in, 0.0625 cached, 5 out: 800 x 0.625 + 200 x 0.0625 + 50 x 5 = 762.5; reasoning is part of the output
        pytest.param("openai", "gpt-5", Usage(1000, 50, 200, None, 20), "0.0007625", id="openai, cached at its own rate"),
        # 0.50 in, 0.05 read, 0.625 write, 2.50 out: 500 x 0.50 + 300 x 0.05 + 200 x 0.625 + 10 x 2.50 = 415
        pytest.param("anthropic", "claude-haiku-4-5-20251001", Usage(1000, 10, 300, 200), "0.000415", id="anthropic, cached"),
        # up to 200,000 input tokens 1.50, 0.15, 1.875, 7.50: 198,500 x 1.50 + 1,000 x 0.15 + 500 x 1.875 + 10 x 7.50
        pytest.param("anthropic", "claude-sonnet-4-5", Usage(200_000, 10, 1000, 500), "0.2989125", id="at the step"),
        # above 3, 0.30, 3.75, 11.25, for all of it: 198,501 x 3 + 1,000 x 0.30 + 500 x 3.75 + 10 x 11.25
        pytest.param("anthropic", "claude-sonnet-4-5", Usage(200_001, 10, 1000, 500), "0.5977905", id="above the step"),
        # the list says of this old model that a batch costs as much as real time: 1 in, 2 out
        pytest.param("openai", "gpt-3.5-turbo-1106", Usage(1000, 50), "0.0011", id="no discount, by the list"),
        pytest.param("openai", "gpt-4o-mini", Usage(0, 0), "0", id="nothing used"),
    ],
)  # fmt: skip
def test_a_batched_request_costs_what_the_price_list_says_of_batches(provider, model, usage, usd):
    """Batch rates where the list names them, standard ones for the rates that it doesn't."""
    cost = batch_cost(provider, model, usage)
    assert cost.usd == Decimal(usd)
    assert cost.source is CostSource.PRICE_TABLE


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        # Azure's list takes gpt-4o from OpenAI's, which has a batch price: OpenAI's, not Azure's
        pytest.param("azure.ai.openai", "gpt-4o", id="azure, model of another list"),
        pytest.param("azure.ai.openai", "o3", id="azure, model of its own"),
        pytest.param("openrouter", "openai/gpt-4o-mini", id="openrouter"),
        pytest.param("anthropic", "claude-opus-4-1", id="anthropic, model without one"),
        pytest.param("openai", "gpt-4o-audio-preview", id="openai, model without one"),
    ],
)
def test_a_batch_without_a_batch_price_has_an_unknown_cost(provider, model):
    """Neither the standard price, which the table has, nor half of it."""
    assert batch_cost(provider, model, processing="real_time").usd > 0
    cost = batch_cost(provider, model)
    assert (cost.usd, cost.source) == (None, CostSource.UNKNOWN)
    assert cost.reason == f"the price table has no batch price of {model} of {provider}"


def test_a_price_of_a_later_day_says_nothing_of_earlier_calls():
    """From the day the table names, the batch price counts; before it nobody knows."""
    assert batch_cost("openai", "gpt-4o-mini", at=KNOWN_FROM).usd == Decimal("0.00009")
    cost = batch_cost("openai", "gpt-4o-mini", at=DAY_BEFORE)
    assert (cost.usd, cost.source) == (None, CostSource.UNKNOWN)
    assert cost.reason == "the price table has a batch price of gpt-4o-mini of openai only from 2026-10-14 on"
    assert batch_cost("openai", "gpt-4o-mini", at=DAY_BEFORE, processing="real_time").usd == Decimal("0.00018")


def test_a_batch_price_without_a_time_is_the_newest():
    """As for standard prices."""
    assert batch_cost("openai", "gpt-4o-mini", at=None).usd == Decimal("0.00009")


@pytest.mark.parametrize(
    ("provider", "model", "usage", "reason"),
    [
        pytest.param("openai_compatible", "m", None, "no prices are known for provider openai_compatible", id="provider"),
        pytest.param("openai", "gpt-unheard-of", None, "has no model gpt-unheard-of of openai", id="model"),
        pytest.param("openai", "gpt-4o", Usage(None, 1), "no token counts", id="no count"),
        pytest.param("openai", "gpt-4o", Usage(10, 1, 11), "contradict", id="more cached than read"),
    ],
)  # fmt: skip
def test_what_has_no_cost_in_real_time_has_none_in_a_batch(provider, model, usage, reason):
    """The same reasons come first."""
    cost = batch_cost(provider, model, usage)
    assert cost.usd is None
    assert reason in cost.reason


@pytest.mark.parametrize("provider", ["openai", "azure.ai.openai", "openrouter"])
def test_the_providers_own_cost_of_a_batched_request_comes_first(provider):
    """What the provider charged is the truth, whatever the table has."""
    cost = batch_cost(provider, "gpt-4o-mini", Usage(), Decimal("0.5"), service_tier="flex")
    assert (cost.usd, cost.source) == (Decimal("0.5"), CostSource.PROVIDER)


def test_the_model_that_answered_is_priced_at_its_own_batch_price():
    """A router's choice counts; where the answering model has no batch price, that of the one asked for is no help."""
    usage, options = Usage(1_000_000, 0), {"at": AT, "processing": "batch"}
    assert PRICES.cost("openai", "gpt-4o", "gpt-4o-mini", usage, None, **options).usd == Decimal("0.075")
    assert PRICES.cost("openai", "gpt-4o", "gpt-unheard-of", usage, None, **options).usd == Decimal("1.25")
    assert PRICES.cost("openai", "gpt-4o", "gpt-4o-audio-preview", usage, None, **options).usd is None


@pytest.mark.parametrize(
    ("tier", "processing", "is_known"),
    [
        pytest.param("batch", "batch", True, id="anthropic's word for a batch"),
        pytest.param("standard", "batch", True, id="standard in a batch"),
        pytest.param("default", "batch", True, id="openai's word in a batch"),
        pytest.param(None, "batch", True, id="not named in a batch"),
        pytest.param("priority", "batch", False, id="dearer in a batch"),
        pytest.param("batch", "real_time", False, id="a batch's tier in real time"),
        pytest.param("standard", "real_time", True, id="standard in real time"),
    ],
)
def test_the_tier_fits_how_the_request_was_run(tier, processing, is_known):
    """A tier that the rates are not for makes the cost unknown."""
    cost = batch_cost("anthropic", "claude-haiku-4-5", service_tier=tier, processing=processing)
    assert (cost.usd is not None) is is_known
    assert is_known or cost.reason == f"service tier {tier} is not in the price list"


def test_rates_for_a_plan_know_batch():
    """Input and output per million tokens; None without a batch price; nothing on this machine."""
    assert PRICES.rates("openai", "gpt-4o-mini", processing="batch") == (Decimal("0.075"), Decimal("0.3"))
    assert PRICES.rates("openai", "gpt-4o-mini", DAY_BEFORE, processing="batch") is None
    assert PRICES.rates("azure_openai", "gpt-4o", processing="batch") is None
    assert PRICES.rates("llama_cpp", "any", processing="batch") == (0, 0)


def priced_in_batches():
    """Return provider and model of every text model of the table that has a batch price."""
    return [
        (provider.id, model.id)
        for provider in providers
        if provider.id in {"openai", "anthropic"}
        for model in provider.models
        if any(variant.when == {"processing": "batch"} for variant in model.price_variants or ())
        and provider.find_model(model.id) is model
        and "image" not in model.id
    ]


COUNT = st.integers(0, 2_000_000)
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.sampled_from(priced_in_batches()), COUNT, COUNT, COUNT, COUNT, MOMENTS)
def test_our_arithmetic_equals_that_of_genai_prices_in_batches(model, fresh, read, write, output, at):
    """Where a batch price is known at that time, the library's number to the last digit; else no number at all."""
    provider, ref = model
    usage = Usage(fresh + read + write, output, read, write)
    ours = PRICES.cost(provider, ref, None, usage, None, at=at, processing="batch")
    theirs = calc_price(
        TableUsage(
            input_tokens=usage.input_tokens, output_tokens=output, cache_read_tokens=read, cache_write_tokens=write
        ),
        ref,
        provider_id=provider,
        genai_request_timestamp=at,
        price_context={"processing": "batch"},
    )
    if any(
        variant.when == {"processing": "batch"} and (variant.constraint is None or variant.constraint.active(at))
        for variant in theirs.model.price_variants
    ):
        assert ours.usd == theirs.total_price
    else:
        assert (ours.usd, ours.source) == (None, CostSource.UNKNOWN)


def test_the_table_prices_many_models_in_batches():
    """The property above has something to look at."""
    found = priced_in_batches()
    assert len([model for provider, model in found if provider == "openai"]) > 30
    assert len([model for provider, model in found if provider == "anthropic"]) > 10
