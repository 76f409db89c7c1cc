"""The fault plan: how it is written, and that it decides the same thing every time."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.sandbox.faults import FaultDecider, FaultKind, FaultPlan, Storm, load_plan

HASHES = [number.to_bytes(16, "big") for number in range(4000)]


def test_kinds_come_with_their_probabilities_sticky_or_not() -> None:
    """Over 4,000 requests each share is within four standard deviations of what was asked for."""
    plan = FaultPlan(rate_limit=0.1, server_error=0.2, refusal=0.1, wrong_json=0.05)
    decider = FaultDecider(plan, seed=7)
    counts = Counter(decider.decide(key, 1) for key in HASHES)
    for kind, share in (("rate_limit", 0.1), ("server_error", 0.2), ("refusal", 0.1), ("wrong_json", 0.05)):
        deviation = (share * (1 - share) * len(HASHES)) ** 0.5
        assert abs(counts[FaultKind(kind)] - share * len(HASHES)) < 4 * deviation


def test_the_same_attempt_meets_the_same_fault_and_another_seed_another() -> None:
    """Decisions are a function of request, attempt and seed."""
    plan = FaultPlan(rate_limit=0.3, refusal=0.2)
    first, again, other = FaultDecider(plan, 1), FaultDecider(plan, 1), FaultDecider(plan, 2)
    decided = [first.decide(key, attempt) for key in HASHES[:500] for attempt in (1, 2)]
    assert decided == [again.decide(key, attempt) for key in HASHES[:500] for attempt in (1, 2)]
    assert decided != [other.decide(key, attempt) for key in HASHES[:500] for attempt in (1, 2)]


def test_retries_cure_what_changes_and_not_what_sticks() -> None:
    """A rate limit goes away after some tries; a refusal stays with its request."""
    decider = FaultDecider(FaultPlan(rate_limit=0.5, refusal=0.2), seed=3)
    for key in HASHES[:300]:
        kinds = [decider.decide(key, attempt) for attempt in range(1, 40)]
        if FaultKind.REFUSAL in kinds:
            assert set(kinds) == {FaultKind.REFUSAL}
        else:
            assert None in kinds


def test_sticky_is_a_choice_of_the_plan() -> None:
    """With nothing sticky a refusal can be followed by an answer; with everything, a 500 can't."""
    loose = FaultDecider(FaultPlan(refusal=0.5, sticky=()), seed=3)
    assert {loose.decide(HASHES[0], attempt) for attempt in range(20)} == {None, FaultKind.REFUSAL}
    fixed = FaultDecider(FaultPlan(server_error=0.5, sticky=("server_error",)), seed=3)
    assert all(len({fixed.decide(key, attempt) for attempt in range(20)}) == 1 for key in HASHES[:50])


@pytest.mark.parametrize("sticky", [(), ("reset",)], ids=["changing", "sticky"])
def test_certainty_is_certain(sticky: tuple[FaultKind, ...]) -> None:
    """Probability one meets every attempt, probability zero none."""
    always = FaultDecider(FaultPlan(reset=1, sticky=sticky), 0)
    assert all(always.decide(key, 1) is FaultKind.RESET for key in HASHES)
    never = FaultDecider(FaultPlan(), 0)
    assert all(never.decide(key, 1) is None for key in HASHES)


@pytest.mark.parametrize(
    ("storm", "inside", "outside"),
    [
        pytest.param(Storm(from_s=2, to_s=5), [(2, 0), (4.99, 9)], [(1.99, 0), (5, 0)], id="seconds"),
        pytest.param(Storm(from_request=10, to_request=12), [(0, 10), (9, 11)], [(0, 9), (0, 12)], id="requests"),
        pytest.param(
            Storm(from_request=0, to_request=2, every=100), [(0, 0), (0, 301)], [(0, 2), (0, 399)], id="recurring"
        ),
    ],
)
def test_a_storm_rages_inside_its_window_only(
    storm: Storm, inside: list[tuple[float, int]], outside: list[tuple[float, int]]
) -> None:
    """Both sides of each edge."""
    assert all(storm.rages(*moment) for moment in inside)
    assert not any(storm.rages(*moment) for moment in outside)


def test_a_plan_is_read_from_text_json_and_yaml_alike(tmp_path: Path) -> None:
    """Three ways to write one plan."""
    expected = FaultPlan(
        rate_limit=0.05, sticky=("refusal",), storms=(Storm(from_s=2, to_s=5), Storm(from_request=0, to_request=20, every=500))
    )  # fmt: skip
    text = "rate_limit=0.05, sticky=refusal, storm=2s-5s, storm=0-20/500"
    path = tmp_path / "faults.yaml"
    path.write_text(
        "rate_limit: 0.05\nsticky: [refusal]\nstorms:\n- {from_s: 2, to_s: 5}\n"
        "- {from_request: 0, to_request: 20, every: 500}\n",
        encoding="utf-8",
    )
    assert load_plan(text) == load_plan(str(path)) == load_plan(expected.model_dump_json()) == expected
    assert load_plan("") == FaultPlan()
    assert load_plan("dead") == FaultPlan(dead=True)
    assert load_plan("sticky=none,retry_after_s=0.1") == FaultPlan(sticky=(), retry_after_s=0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("rate_limits=0.1", ["rate_limits", "known are rate_limit"], id="unknown kind"),
        pytest.param("reset=1.5", ["reset", "less than or equal to 1"], id="above one"),
        pytest.param("reset=often", ["reset"], id="no number"),
        pytest.param("reset=0.6,hang=0.6", ["add up to 1.200"], id="too much together"),
        pytest.param("storm=5s-2s", ["storms.0", "from_s < to_s"], id="storm backwards"),
        pytest.param("missing.yaml", ["missing.yaml", "neither a file"], id="no such file"),
        pytest.param("sticky=weather", ["sticky.0"], id="unknown sticky kind"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_key_at_fault(text: str, words: list[str]) -> None:
    """The sentence is for the person who wrote the plan."""
    with pytest.raises(ValueError) as caught:
        load_plan(text)
    assert all(word in str(caught.value) for word in words)
