"""rules/run_totals.py: sums over calls, exact and in any order."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.storage_builders import make_call, make_failed_call
from transforms.records.call import CallType, CostSource
from transforms.records.failure import FailureKind
from transforms.rules.run_totals import CallTotals

COSTS = st.one_of(
    st.none(), st.decimals(0, 100_000, places=18, allow_nan=False, allow_infinity=False).map(lambda d: d.copy_abs())
)
CALLS = st.lists(
    st.builds(
        lambda kind, cost, tokens: make_call() if kind is None else make_failed_call(
            0, kind, cost_usd=cost, cost_reason=None if cost is not None else "lost", input_tokens=tokens),
        st.sampled_from([None, FailureKind.TIMEOUT, FailureKind.TRUNCATED]),
        COSTS,
        st.one_of(st.none(), st.integers(0, 10**6)),
    ),
    max_size=12,
)  # fmt: skip


def total(calls):
    """Return the sum."""
    totals = CallTotals()
    for call in calls:
        assert totals.add(call) is totals
    return totals


@given(CALLS, st.data())
def test_sums_do_not_depend_on_order_or_grouping(calls, data):
    """Added in any order, or in two parts that are merged, the sums are the same to the last digit."""
    whole = total(calls)
    shuffled = data.draw(st.permutations(calls))
    cut = data.draw(st.integers(0, len(calls)))
    assert total(shuffled).to_json() == whole.to_json()
    assert total(shuffled[:cut]).merge(total(shuffled[cut:])).to_json() == whole.to_json()


@given(CALLS)
def test_money_is_exact(calls):
    """The sum equals the sum of the parts as fractions; unknown costs are counted and never taken for nothing."""
    totals = total(calls)
    assert Fraction(totals.cost_usd) == sum(
        (Fraction(c.cost_usd) for c in calls if c.cost_usd is not None), Fraction(0)
    )
    assert totals.unknown_cost == sum(call.cost_usd is None for call in calls)
    assert Decimal(str(totals.to_json()["cost_usd"])) == totals.cost_usd
    assert totals.sent == totals.succeeded + totals.failed == len(calls)
    assert sum(totals.failures.values()) == totals.failed
    assert sum(totals.cost_reasons.values()) == totals.unknown_cost


def test_only_calls_that_ask_for_an_answer_count():
    """An upload or a status check is no answer of a row."""
    assert total([make_call(call_type=CallType.HTTP)]).to_json() == CallTotals().to_json()


def test_absent_counters_add_nothing():
    """A provider that gave no usage leaves the sums as they are."""
    assert total([make_call(), make_call(1, input_tokens=None, output_tokens=None)]).to_json() | {"cost_usd": ""} == {
        "sent": 2, "succeeded": 2, "failed": 0, "input_tokens": 100, "output_tokens": 20, "cost_usd": "",
        "unknown_cost": 0, "failures": {}, "cost_reasons": {},
    }  # fmt: skip


def test_money_is_written_without_an_exponent():
    """So that no reader takes it for a binary number."""
    tiny = make_call(cost_usd=Decimal("1E-18"), cost_source=CostSource.PROVIDER)
    assert total([tiny]).to_json()["cost_usd"] == "0.000000000000000001"
