"""Findings are rare, and right."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.rules.bins import MOST_BINS, make_bins
from transforms.rules.drift import (
    Against,
    Sample,
    distribution_deviations,
    find_dead_letter_drift,
    find_distribution_drift,
    find_mean_drift,
    total_variation,
)
from transforms.rules.findings import (
    find_cost_outliers,
    find_dominant_value,
    find_near_duplicates,
    find_refusals,
    find_repairs,
    find_truncation,
    outlier_bound,
    percent,
    sorted_findings,
)
from transforms.rules.job_changes import job_changes
from transforms.rules.near_duplicates import find_largest_group

EARLIER = Against("20261120T000000-000001")


@pytest.mark.parametrize(
    ("truncated", "replies", "severity"),
    [
        pytest.param(0, 1000, None, id="none"),
        pytest.param(4, 10, None, id="too-few-cases"),
        pytest.param(9, 1000, None, id="under-a-percent"),
        pytest.param(19, 1000, None, id="just-under"),
        pytest.param(20, 1000, "warning", id="two-percent"),
        pytest.param(50, 1000, "serious", id="five-percent"),
        pytest.param(0, 0, None, id="no-replies"),
    ],
)
def test_truncations_count_from_two_percent(truncated: int, replies: int, severity: str | None) -> None:
    """Single cut answers are dead letters; a share of them is a finding that names the setting."""
    found = find_truncation(truncated, replies, 64, 50, ["a"])
    assert (found.severity if found else None) == severity
    if found:
        assert "max_output_tokens (now 64)" in found.detail
        assert found.to_json()["rows"] == ["a"]


@pytest.mark.parametrize(
    ("refused", "filtered", "severity"),
    [
        pytest.param(10, 0, None, id="one-percent"),
        pytest.param(12, 10, "warning", id="both-together"),
        pytest.param(0, 60, "serious", id="filter-alone"),
    ],
)
def test_refusals_and_filtered_answers_count_together(refused: int, filtered: int, severity: str | None) -> None:
    """Whoever held an answer back, the row has none."""
    found = find_refusals(refused, filtered, 1000, [])
    assert (found.severity if found else None) == severity


@pytest.mark.parametrize(
    ("repaired", "severity"),
    [
        pytest.param(30, None, id="three-percent"),
        pytest.param(50, "warning", id="five-percent"),
        pytest.param(200, "serious", id="a-fifth"),
    ],
)
def test_repairs_count_from_five_percent(repaired: int, severity: str | None) -> None:
    """A few repairs are what the repair lane is for."""
    found = find_repairs(repaired, repaired - 1, 1000, "$0.02", [])
    assert (found.severity if found else None) == severity
    assert found is None or "$0.02" in found.detail


@pytest.mark.parametrize(
    ("counts", "options", "severity"),
    [
        pytest.param({"good": 850, "bad": 100, "none": 50}, 3, None, id="skewed-is-healthy"),
        pytest.param({"good": 960, "bad": 40}, 3, "info", id="nineteen-of-twenty"),
        pytest.param({"good": 1000}, 3, "warning", id="constant-enum"),
        pytest.param({"good": 90}, 3, None, id="too-few-answers"),
        pytest.param({"false": 990, "true": 10}, 2, None, id="rare-yes-is-healthy"),
        pytest.param({"false": 1000}, 2, "info", id="constant-boolean"),
        pytest.param({"x": 1000}, 1, None, id="only-one-allowed"),
        pytest.param({"x": 1000}, None, None, id="constant-free-text-is-not-an-enum"),
        pytest.param({}, 3, None, id="no-answers"),
    ],
)
def test_a_value_dominates_when_nearly_all_have_it(
    counts: dict[str, int], options: int | None, severity: str | None
) -> None:
    """Skewed labels are common; one label for nearly every row is a model that doesn't look."""
    found = find_dominant_value("label", counts, options)
    assert (found.severity if found else None) == severity


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_costs_that_follow_text_lengths_have_no_outliers(sigma: float, seed: int) -> None:
    """Log-normal lengths, the usual ones, never give an outlier."""
    draws = random.Random(seed)
    logs = sorted(draws.gauss(-10, sigma) for _ in range(4000))
    middle = logs[2000]
    mad = sorted(abs(each - middle) for each in logs)[2000]
    assert max(logs) < math.log(outlier_bound(middle, mad))


@pytest.mark.parametrize(
    ("outliers", "calls", "usd", "severity"),
    [
        pytest.param(3, 1000, 0.5, "warning", id="half-the-bill"),
        pytest.param(3, 1000, 0.05, "info", id="a-twentieth"),
        pytest.param(3, 1000, 0.01, None, id="cheap-outliers"),
        pytest.param(3, 90, 0.5, None, id="few-calls"),
        pytest.param(0, 1000, 0.0, None, id="none"),
    ],
)
def test_outliers_count_by_their_part_of_the_bill(outliers: int, calls: int, usd: float, severity: str | None) -> None:
    """A dear call that costs nothing to speak of is no finding."""
    found = find_cost_outliers(outliers, calls, usd, 1.0, 40.0, ["a"])
    assert (found.severity if found else None) == severity


@pytest.mark.parametrize(
    ("alike", "text", "severity"),
    [
        pytest.param(90, "The customer is happy with it.", None, id="below-a-tenth"),
        pytest.param(200, "The customer is happy with it.", "info", id="a-fifth"),
        pytest.param(400, "The customer is happy with it.", "warning", id="two-fifths"),
        pytest.param(700, "The customer is happy with it.", "serious", id="most"),
        pytest.param(700, "no defect", None, id="labels-are-not-texts"),
    ],
)
def test_alike_texts_count_by_their_share(alike: int, text: str, severity: str | None) -> None:
    """Short sums repeat by right; most answers alike don't."""
    found = find_near_duplicates("summary", alike, 1000, 5000, text, [])
    assert (found.severity if found else None) == severity


def _sentence(draws: random.Random, words: int = 25) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(draws.choices(letters, k=4)) for _ in range(words))


def test_texts_that_differ_in_a_word_are_one_group() -> None:
    """A changed word, number or capital letter keeps a text in its group; other texts stay out."""
    draws = random.Random(1)
    base = _sentence(draws).split()
    texts = []
    for place in range(300):
        words = list(base)
        words[draws.randrange(25)] = f"other{place}" if place % 2 else "Else"
        texts += [" ".join(words), _sentence(draws)]
    group = find_largest_group(texts)
    assert all(place % 2 == 0 for place in group)
    assert len(group) >= 0.95 * 300


@pytest.mark.parametrize("texts", [[], [""], ["", "..", "12 34"], ["one text alone"]])
def test_texts_without_a_like_have_no_group(texts: list[str]) -> None:
    """Empty texts are not alike: there is nothing to compare."""
    assert find_largest_group(texts) == []


@pytest.mark.parametrize(
    ("before", "now", "severity"),
    [
        pytest.param({"a": 500, "b": 500}, {"a": 500, "b": 500}, None, id="equal"),
        pytest.param({"a": 500, "b": 500}, {"a": 550, "b": 450}, None, id="five-points"),
        pytest.param({"a": 500, "b": 500}, {"a": 650, "b": 350}, "warning", id="fifteen-points"),
        pytest.param({"a": 500, "b": 500}, {"c": 1000}, "serious", id="other-values"),
        pytest.param({"a": 25, "b": 25}, {"a": 35, "b": 25}, None, id="chance-in-small-counts"),
        pytest.param({"a": 5}, {"b": 5}, None, id="too-few"),
        pytest.param({}, {"b": 5000}, None, id="nothing-before"),
    ],
)
def test_distributions_drift_when_they_move_more_than_chance(
    before: dict[str, int], now: dict[str, int], severity: str | None
) -> None:
    """A tenth of the answers must have moved, and chance must not explain it."""
    found = find_distribution_drift("label", before, now, EARLIER)
    assert (found.severity if found else None) == severity


@pytest.mark.parametrize("size", [60, 300, 3000])
def test_samples_of_one_distribution_never_drift(size: int) -> None:
    """Two runs over different rows of the same kind are quiet, whatever the sizes."""
    draws = random.Random(size)
    for _ in range(60):
        kinds = draws.randrange(2, 15)
        weights = [draws.random() ** 2 + 0.01 for _ in range(kinds)]
        sides = []
        for count in (size, draws.choice((60, size))):
            drawn = draws.choices(range(kinds), weights, k=count)
            sides.append({str(value): drawn.count(value) for value in set(drawn)})
        assert find_distribution_drift("label", *sides, EARLIER) is None


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 500)),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 500)),
)
def test_distance_is_symmetrical_and_bounded(one: dict[str, int], other: dict[str, int]) -> None:
    """Total variation lies between 0 and 1, is 0 for equals, and knows no order; the test never fails."""
    assert 0 <= total_variation(one, other) <= 1 + 1e-12
    assert total_variation(one, other) == pytest.approx(total_variation(other, one))
    assert total_variation(one, one) == 0
    assert math.isfinite(distribution_deviations(one, other))


@pytest.mark.parametrize(
    ("before", "now", "severity"),
    [
        pytest.param((10, 1000), (15, 1000), None, id="half-a-point"),
        pytest.param((10, 1000), (60, 1000), "warning", id="five-points"),
        pytest.param((10, 1000), (200, 1000), "serious", id="nineteen-points"),
        pytest.param((200, 1000), (10, 1000), None, id="fewer-are-welcome"),
        pytest.param((0, 60), (3, 60), None, id="chance"),
        pytest.param((0, 0), (0, 0), None, id="no-rows"),
        pytest.param((0, 100), (0, 100), None, id="none-at-all"),
    ],
)
def test_more_dead_letters_than_before_are_drift(
    before: tuple[int, int], now: tuple[int, int], severity: str | None
) -> None:
    """Only more, by two points and half as many again, beyond chance."""
    found = find_dead_letter_drift(before, now, EARLIER)
    assert (found.severity if found else None) == severity


@pytest.mark.parametrize(
    ("before", "now", "severity"),
    [
        pytest.param(Sample(1000, 1.0, 0.5), Sample(1000, 1.2, 0.5), None, id="a-fifth"),
        pytest.param(Sample(1000, 1.0, 0.5), Sample(1000, 1.3, 0.5), "warning", id="dearer"),
        pytest.param(Sample(1000, 1.0, 0.5), Sample(1000, 0.6, 0.5), "info", id="cheaper"),
        pytest.param(Sample(60, 1.0, 3.0), Sample(60, 1.6, 3.0), None, id="chance"),
        pytest.param(Sample(0, 0.0, 0.0), Sample(1000, 1.0, 0.5), None, id="nothing-before"),
    ],
)
def test_means_drift_by_a_quarter(before: Sample, now: Sample, severity: str | None) -> None:
    """And beyond what their spread explains."""
    found = find_mean_drift("The cost per row", before, now, Against("r", ("model.name",)), ("$1", "$2"))
    assert (found.severity if found else None) == severity
    assert found is None or "model.name" in found.detail


def test_findings_come_gravest_first() -> None:
    """None is left out."""
    found = sorted_findings([None, find_truncation(20, 1000, None, None, []), find_refusals(60, 0, 1000, [])])
    assert [each.severity for each in found] == ["serious", "warning"]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.0001, "0.1 %"),
        (0.034, "3.4 %"),
        (0.5, "50 %"),
        (0.9999, "99.9 %"),
        (1.524, "152 %"),
    ],
)
def test_shares_read_well(share: float, text: str) -> None:
    """None and all are said only when it is none and all."""
    assert percent(share) == text


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50), st.booleans())
def test_every_value_has_its_bin(values: list[float], whole: bool) -> None:
    """The bins are few and cover all values, the tail included."""
    numbers = sorted(float(round(value)) if whole else value for value in values)
    low, high, top = numbers[0], numbers[(len(numbers) * 9) // 10], numbers[-1]
    bins = make_bins(low, high, top, whole=whole)
    assert bins.count <= MOST_BINS + 2
    first, last = bins.edges(0)[0], bins.edges(bins.count - 1 + bins.has_tail)[1]
    assert first <= low + abs(low) * 1e-9
    assert last >= top - abs(top) * 1e-9


def test_job_changes_name_what_answers_depend_on() -> None:
    """Where it goes and how fast it runs are left out; a schema is one thing."""
    before = {"output": "a", "model": {"name": "x", "params": {"seed": 1}}, "answer": {"schema": {"type": "object"}}}
    now = {"output": "b", "model": {"name": "y", "params": {"seed": 1}}, "answer": {"schema": {"type": "string"}}}
    assert [change["key"] for change in job_changes(before, now)] == ["answer.schema", "model.name"]
