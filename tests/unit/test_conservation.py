"""The proof by identity, against the same proof done one place at a time."""

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from transforms.records.row import Outcome
from transforms.rules.conservation import BLOCK_LINES, Marks, judge

LINES = st.one_of(st.integers(1, 6), st.integers(BLOCK_LINES - 2, BLOCK_LINES + 2), st.just(10**12))
PLACES = st.tuples(st.sampled_from(["a.csv", "b.csv"]), LINES)


def proved(reads, ended):
    """Return counts and complaints, with the marks spread over three bundles."""
    bundles = [Marks(), Marks(), Marks()]
    for number, place in enumerate(reads):
        bundles[number % 3].read(*place)
    for number, (place, outcome) in enumerate(ended):
        bundles[number % 2].ended(*place, outcome)
    blocks = defaultdict(list)
    for marks in bundles:
        for block, packed in marks.take():
            blocks[block].append(packed)
    verdicts = [judge(block, packed) for block, packed in blocks.items()]
    counts = sum((verdict.counts for verdict in verdicts), Counter())
    return counts, sorted(complaint for verdict in verdicts for complaint in verdict.complaints)


@given(st.lists(PLACES, max_size=30), st.lists(st.tuples(PLACES, st.sampled_from(list(Outcome))), max_size=30))
def test_every_place_is_judged_as_it_would_be_alone(reads, ended):
    """Lost, doubled and invented rows are told from those in order, whatever block they lie in."""
    counts: Counter[str] = Counter()
    complaints = []
    for place in {*reads, *(place for place, _ in ended)}:
        outcomes = sorted(str(outcome) for other, outcome in ended if other == place)
        if reads.count(place) == 1 and len(outcomes) == 1:
            counts[outcomes[0]] += 1
        else:
            had = " and ".join(outcomes) or "no outcome"
            complaints.append(f"{place[0]}:{place[1]}: read {reads.count(place)} time(s), ended with {had}")
    assert proved(reads, ended) == (counts, sorted(complaints))


@given(st.sets(PLACES, min_size=1, max_size=40))
def test_rows_that_end_once_are_in_order(places):
    """The quick way gives the counts and no complaint."""
    outcomes = list(Outcome)
    ended = [(place, outcomes[number % len(outcomes)]) for number, place in enumerate(sorted(places))]
    counts, complaints = proved(sorted(places), ended)
    assert (sum(counts.values()), complaints) == (len(places), [])
