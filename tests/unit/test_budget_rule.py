"""rules/budget.py and PriceTable.ceiling: worst cases, the fold of the budget's log, and the arithmetic of slices."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.records.request import Prompt
from transforms.records.usage import Usage
from transforms.rules.budget import (
    NO_WORST_CASE,
    BudgetEntry,
    BudgetState,
    batch_charge,
    batch_limit,
    slice_units,
    units_down,
    units_up,
    usd_of,
    usd_text,
    worst_case,
)
from transforms.rules.price import PriceTable

_RATES = (Decimal("0.15"), Decimal("0.6"))


@pytest.mark.parametrize(
    ("usd", "up", "down", "text"),
    [
        pytest.param("0", 0, 0, "0", id="nothing"),
        pytest.param("25", 25 * 10**12, 25 * 10**12, "25", id="whole dollars"),
        pytest.param("0.000000000001", 1, 1, "0.000000000001", id="one unit"),
        pytest.param("0.0000000000001", 1, 0, "0", id="less than a unit goes against the spender"),
        pytest.param("10.50", 10_500_000_000_000, 10_500_000_000_000, "10.5", id="no trailing zeros"),
    ],
)
def test_amounts_become_units_and_text(usd, up, down, text):
    """What is spent is rounded up, what may be spent down; both read back exactly."""
    assert (units_up(Decimal(usd)), units_down(Decimal(usd)), usd_text(down)) == (up, down, text)
    assert units_up(usd_of(up)) == up


@pytest.mark.parametrize(
    ("prompt", "max_output", "has_schema", "usd"),
    [
        # (100 + 32 + 16 + 4) x 0.15 + 10 x 0.6, millionths of a dollar
        pytest.param(Prompt(None, (("user", "abcd"),)), 10, False, "0.0000288", id="text"),
        pytest.param(Prompt("ab", (("user", "abcd"),)), 10, False, "0.0000315", id="system part"),
        pytest.param(Prompt(None, (("user", "ä日"),)), 10, False, "0.00002895", id="bytes, not characters"),
        pytest.param(Prompt(None, (("user", "abcd"),)), 10, True, "0.0001188", id="what explains a schema"),
        pytest.param(Prompt(None, (("user", "abcd"),)), 1000, False, "0.0006228", id="long answers"),
    ],
)
def test_worst_case_of_a_request_by_hand(prompt, max_output, has_schema, usd):
    """Bytes and margins at the input's rate, the longest answer at the output's."""
    worst = worst_case(_RATES, 100, max_output, has_schema=has_schema)
    assert usd_of(worst.of_prompt(prompt)) == Decimal(usd)


@given(st.text(max_size=200), st.none() | st.text(max_size=50), st.integers(0, 500), st.integers(1, 500))
def test_no_usage_within_the_limits_costs_more_than_the_worst_case(text, system, cached, output):
    """Whatever the tokens are, up to a token a byte, the price table charges no more than was reserved."""
    prices = PriceTable()
    rates = prices.ceiling("anthropic", "claude-haiku-4-5")
    worst = worst_case(rates, 50, 500, has_schema=False).of_prompt(Prompt(system, (("user", text),)))
    tokens = len(text.encode("utf-8", "surrogatepass")) + len((system or "").encode("utf-8", "surrogatepass")) + 50
    usage = Usage(tokens, output, None, min(cached, tokens), None)
    cost = prices.cost("anthropic", "claude-haiku-4-5", None, usage, None)
    assert units_up(cost.usd) <= worst


@pytest.mark.parametrize(
    ("provider", "model", "processing", "rates"),
    [
        pytest.param("openai", "gpt-4o-mini", "real_time", ("0.15", "0.6"), id="one price"),
        pytest.param("openai", "gpt-4o-mini", "batch", ("0.075", "0.3"), id="batch"),
        pytest.param("anthropic", "claude-haiku-4-5", "real_time", ("1.25", "5"), id="writing a cache costs most"),
        pytest.param("anthropic", "claude-sonnet-4-5", "real_time", ("7.5", "22.5"), id="the highest tier"),
        pytest.param("azure.ai.openai", "gpt-4o-mini", "batch", ("0.15", "0.6"), id="a batch without a price"),
        pytest.param("llama_cpp", "any", "real_time", ("0", "0"), id="local"),
        pytest.param("openai", "no-such-model", "real_time", None, id="unknown model"),
        pytest.param("openai_compatible", "gpt-4o-mini", "real_time", None, id="unknown provider"),
    ],
)
def test_ceiling_is_the_highest_price_there_is(provider, model, processing, rates):
    """Per million tokens of each side, whatever the tokens are."""
    expected = None if rates is None else tuple(Decimal(rate) for rate in rates)
    assert PriceTable().ceiling(provider, model, processing) == expected


def test_without_a_price_next_to_nothing_is_held():
    """The run then stops only by the costs that are known, but it does stop."""
    assert NO_WORST_CASE.of_prompt(Prompt("s", (("user", "u"),))) == 1


@pytest.mark.parametrize(
    ("available", "need", "size"),
    [
        pytest.param(3200, 10, 100, id="a part of what is left"),
        pytest.param(3200, 500, 500, id="at least what is needed"),
        pytest.param(100, 100, 100, id="all of it"),
        pytest.param(100, 101, 0, id="too little"),
        pytest.param(100, 60, 100, id="a rest that is of no use goes along"),
        pytest.param(0, 1, 0, id="nothing left"),
        pytest.param(0, 0, 0, id="nothing asked"),
    ],
)
def test_slices(available, need, size):
    """A process takes some, never more than there is."""
    assert slice_units(available, need) == size


@pytest.mark.parametrize(
    ("available", "whole", "requests", "limit"),
    [
        pytest.param(400, 100, 10, 100, id="a quarter of what is left"),
        pytest.param(400, 6_400_000, 100_000, 400, id="never more than what is left"),
        pytest.param(400, 12_800, 1000, 200, id="not cut into crumbs"),
        pytest.param(400, 1500, 10, 150, id="one request at least"),
        pytest.param(400, 4010, 10, None, id="not even one has room"),
        pytest.param(0, 0, 0, 0, id="nothing of nothing"),
    ],
)
def test_batches_are_cut_so_that_some_fit(available, whole, requests, limit):
    """Small enough to go one beside the other, large enough to be worth their exchanges."""
    assert batch_limit(available, whole, requests) == limit


@pytest.mark.parametrize(
    ("held", "known", "unknown", "charge"),
    [
        pytest.param(100, 40, 0, 40, id="all known"),
        pytest.param(100, 40, 30, 70, id="the unknown at its worst"),
        pytest.param(100, 40, 90, 100, id="never more than held for what is unknown"),
        pytest.param(100, 130, 0, 130, id="what was charged counts"),
        pytest.param(None, 40, 90, 130, id="no hold"),
    ],
)
def test_collected_batches_are_charged(held, known, unknown, charge):
    """What is known, and the worst case of what may have been billed."""
    assert batch_charge(held, known, unknown) == charge


def _entry(op, entry_id, units, run_id="r1"):
    return BudgetEntry(op, entry_id, units, run_id, "slice", 0.0)


def test_fold_charges_holds_until_they_are_settled():
    """A settlement replaces all holds of its account; the charge stays with the run that held."""
    state = BudgetState()
    for entry in (_entry("hold", "a#0", 50), _entry("hold", "a#1", 30), _entry("hold", "b", 7)):
        state.apply(entry)
    assert (state.charged(None), state.charged("r1"), state.held("a#1"), state.held("c")) == (87, 87, 30, None)
    state.apply(_entry("settle", "a", 60, "r2"))
    assert (state.charged(None), state.charged("r1"), state.charged("r2")) == (67, 67, 0)
    assert (state.held("a#0"), state.is_settled("a#7"), [hold.id for hold in state.open_holds("slice")]) == (
        None,
        True,
        ["b"],
    )


def test_repeated_entries_change_nothing():
    """Ids make entries idempotent: neither a hold nor a settlement counts twice, and a settled hold can't come back."""
    state = BudgetState()
    for entry in (
        _entry("hold", "a", 50),
        _entry("hold", "a", 50),
        _entry("settle", "a", 20),
        _entry("settle", "a", 9),
    ):
        state.apply(entry)
    state.apply(_entry("hold", "a", 50))
    assert state.charged(None) == 20


def test_a_charge_without_a_hold_counts():
    """What a run without a budget cost is charged by itself."""
    state = BudgetState()
    state.apply(_entry("settle", "run:r0", 12, "r1"))
    assert (state.charged(None), state.charged("r1")) == (12, 12)


_STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["take", "settle", "again"]), st.integers(0, 120)), max_size=60
)


@given(_STEPS, st.integers(0, 1000))
def test_charged_never_passes_the_budget_whatever_the_interleaving(steps, most):
    """Workers that take slices by the rule and settle within them never spend more than there is, nor lose any."""
    state, holds, number = BudgetState(), dict.fromkeys("abcd", 0), 0
    rounds = dict.fromkeys("abcd", 0)
    for worker, step, amount in steps:
        account = f"{worker}.{rounds[worker]}"
        if step == "take":
            size = slice_units(most - state.charged(None), amount)
            if size:
                number += 1
                state.apply(_entry("hold", f"{account}#{number}", size, worker))
                holds[worker] += size
        elif step == "settle":
            state.apply(_entry("settle", account, min(amount, holds[worker]), worker))
            holds[worker] = 0
            rounds[worker] += 1
        else:
            before = state.charged(None)
            state.apply(_entry("settle", f"{worker}.{rounds[worker] - 1}", 0, worker)) if rounds[worker] else None
            assert state.charged(None) == before
        assert 0 <= state.charged(None) <= most
        assert sum(state.charged(name) for name in "abcd") == state.charged(None)
