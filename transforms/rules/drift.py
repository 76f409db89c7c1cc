"""Whether two runs of a job differ by more than chance: of distributions, shares and means.

Each rule asks for an effect that matters and for a significance that survives twenty comparisons a night for a year:
four standard deviations, three chances in 100,000. Rows that both runs share make the tests more careful, not less.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transforms.rules.findings import Finding, Severity, percent

#: Fewer answers in either run are not compared.
FEWEST = 50
#: Standard deviations that chance doesn't reach; see above.
SIGNIFICANT = 4.0
#: Total variation: this share of the answers would have to change to turn one run's distribution into the other's.
#: A tenth is more than a new week's rows usually bring; a quarter is another question, model or input.
MOVED = 0.10
MOVED_SERIOUS = 0.25
#: Dead letters: two more in a hundred, and half as many again.
DEAD_POINTS = 0.02
DEAD_FACTOR = 1.5
DEAD_POINTS_SERIOUS = 0.10
#: Means (tokens, cost): a quarter more or less.
MEAN_CHANGE = 0.25
#: What the chi-square test needs of each of its cells.
_FEWEST_EXPECTED = 5.0
_SHOWN_VALUES = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """A mean with what its error is made of."""

    count: int
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Against:
    """The run that is compared with.

    Attributes:
        run_id: its id.
        changes: what of the job is not what it was, such as "model.name".
    """

    run_id: str
    changes: tuple[str, ...] = ()

    def told(self) -> str:
        """Return where to look, as the end of a detail."""
        if not self.changes:
            return " The job is the same: look at what changed in the input, or whether the provider changed the model."
        return f" Between the runs the job changed: {', '.join(self.changes)}."


def total_variation(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Return half the sum of the differences of the shares: 0 for equal distributions, 1 for disjoint ones."""
    was, has = sum(before.values()), sum(now.values())
    if not was or not has:
        return 0.0 if was == has else 1.0
    values = before.keys() | now.keys()
    return math.fsum(abs(before.get(value, 0) / was - now.get(value, 0) / has) for value in values) / 2


def distribution_deviations(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Return by how many standard deviations two samples' counts differ more than chance makes them.

    A chi-square test of both against what they are together, rare values taken as one, its result as a standard
    normal deviation (Wilson and Hilferty); 0 where there is nothing to compare.
    """
    was, has = sum(before.values()), sum(now.values())
    if not was or not has:
        return 0.0
    cells = _cells(before, now, was, has)
    if len(cells) < 2:
        return 0.0
    total = was + has
    chi_square = 0.0
    for old, new in cells:
        for seen, size in ((old, was), (new, has)):
            expected = (old + new) * size / total
            chi_square += (seen - expected) ** 2 / expected
    return _normal_deviation(chi_square, len(cells) - 1)


def find_distribution_drift(
    field: str,
    before: Mapping[str, int],
    now: Mapping[str, int],
    against: Against,
    told: str = "",
    rows: Sequence[str] = (),
) -> Finding | None:
    """Judge whether a field's answers have moved.

    Args:
        field: the field's path.
        before: counts by value (or by range) in the earlier run.
        now: the same of this run.
        against: the earlier run.
        told: how they moved, where the values are ranges; else the values that moved most are named.
        rows: some rows of what became more frequent.
    """
    moved = total_variation(before, now)
    if min(sum(before.values()), sum(now.values())) < FEWEST or moved < MOVED:
        return None
    if distribution_deviations(before, now) < SIGNIFICANT:
        return None
    return Finding(
        "drift",
        "serious" if moved >= MOVED_SERIOUS else "warning",
        f"{field}: {percent(moved)} of the answers moved since run {against.run_id}",
        f"{told or _moves(before, now)}.{against.told()}",
        moved,
        tuple(rows),
    )


def find_dead_letter_drift(
    before: tuple[int, int], now: tuple[int, int], against: Against, rows: Sequence[str] = ()
) -> Finding | None:
    """Judge whether more rows die than in the earlier run; `before` and `now` are (dead letters, rows)."""
    (old_dead, old_rows), (new_dead, new_rows) = before, now
    if min(old_rows, new_rows) < FEWEST:
        return None
    old, new = old_dead / old_rows, new_dead / new_rows
    together = (old_dead + new_dead) / (old_rows + new_rows)
    error = math.sqrt(together * (1 - together) * (1 / old_rows + 1 / new_rows))
    if new - old < DEAD_POINTS or new < DEAD_FACTOR * old or new - old < SIGNIFICANT * error:
        return None
    return Finding(
        "drift",
        "serious" if new - old >= DEAD_POINTS_SERIOUS else "warning",
        f"{percent(new)} of the rows are dead letters, after {percent(old)} in run {against.run_id}",
        f"{new_dead:,} of {new_rows:,} rows, after {old_dead:,} of {old_rows:,}.{against.told()}",
        new - old,
        tuple(rows),
    )


def find_mean_drift(what: str, before: Sample, now: Sample, against: Against, shown: tuple[str, str]) -> Finding | None:
    """Judge whether a mean, such as the cost per row, has changed.

    Args:
        what: what it is the mean of, such as "Cost per row".
        before: of the earlier run.
        now: of this run.
        against: the earlier run.
        shown: both means as people read them.
    """
    if min(before.count, now.count) < FEWEST or before.mean <= 0:
        return None
    change = now.mean / before.mean - 1
    error = math.sqrt(before.deviation**2 / before.count + now.deviation**2 / now.count)
    if abs(change) < MEAN_CHANGE or abs(now.mean - before.mean) < SIGNIFICANT * error:
        return None
    severity: Severity = "warning" if change > 0 else "info"
    way = "up" if change > 0 else "down"
    return Finding(
        "drift",
        severity,
        f"{what} is {way} {percent(abs(change))} since run {against.run_id}",
        f"{shown[1]} after {shown[0]}.{against.told()}",
        change,
    )


def _cells(before: Mapping[str, int], now: Mapping[str, int], was: int, has: int) -> list[tuple[int, int]]:
    pairs = [(before.get(value, 0), now.get(value, 0)) for value in before.keys() | now.keys()]
    share = min(was, has) / (was + has)
    often = [pair for pair in pairs if sum(pair) * share >= _FEWEST_EXPECTED]
    rare = [pair for pair in pairs if sum(pair) * share < _FEWEST_EXPECTED]
    rest = (sum(old for old, _ in rare), sum(new for _, new in rare))
    return often + ([rest] if sum(rest) * share >= _FEWEST_EXPECTED else [])


def _normal_deviation(chi_square: float, freedom: int) -> float:
    spread = 2 / (9 * freedom)
    return float(((chi_square / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))


def _moves(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    was, has = sum(before.values()), sum(now.values())
    shares = [(value, before.get(value, 0) / was, now.get(value, 0) / has) for value in before.keys() | now.keys()]
    largest = sorted(shares, key=lambda each: (-abs(each[2] - each[1]), each[0]))[:_SHOWN_VALUES]
    return "; ".join(f'"{value}" {percent(new)} after {percent(old)}' for value, old, new in largest)
