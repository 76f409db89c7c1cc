"""rules/shares.py: the parts of all members are never more than the whole, and everybody gets one."""

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from transforms.rules.shares import (
    Member,
    Pace,
    Shares,
    Watch,
    ask,
    leave,
    part_of,
    slots_of,
    take_turn,
    units_of,
    whole_units,
)


def turn(shares, who, *, in_use=0, gone=frozenset(), is_done=False):
    """Take a turn as a process does, at once."""
    asked = ask(shares, who, gone, is_done=is_done)
    return take_turn(asked, who, min(in_use, shares.held(who)), shares.changes + 1, 15.0)


def held(shares):
    """Return the units of each member."""
    return {who: member.units for who, member in shares.members.items()}


@pytest.mark.parametrize(
    ("limits", "whole"),
    [
        pytest.param((500, None, None), 500, id="a-unit-is-a-call-in-flight"),
        pytest.param((500, 600, None), 100, id="and-at-least-six-requests-a-minute"),
        pytest.param((500, 600, 120_000), 20, id="and-at-least-six-thousand-tokens-a-minute"),
        pytest.param((500, 1, 1), 1, id="never-less-than-one"),
        pytest.param((1, 100_000, None), 1, id="one-call-can-not-be-divided"),
    ],
)
def test_a_unit_is_worth_a_usual_request_at_once(limits, whole):
    """What members may send at once adds up to what one process may."""
    assert whole_units(*limits) == whole


@given(st.integers(1, 10_000), st.data())
def test_slots_of_all_parts_are_never_more_than_the_limit(max_in_flight, data):
    """However the whole is divided; a unit is at least a slot, and the units of what is in flight are enough for it."""
    whole = data.draw(st.integers(1, max_in_flight))
    cuts = sorted(data.draw(st.lists(st.integers(0, whole), max_size=20)))
    parts = [after - before for before, after in zip([0, *cuts], [*cuts, whole], strict=True)]
    assert sum(slots_of(part, whole, max_in_flight) for part in parts) <= max_in_flight
    assert slots_of(whole, whole, max_in_flight) == max_in_flight
    for part in parts:
        slots = slots_of(part, whole, max_in_flight)
        assert slots >= part
        assert units_of(slots, whole, max_in_flight) <= part
        assert slots_of(units_of(slots, whole, max_in_flight), whole, max_in_flight) >= slots


def test_a_lone_process_has_all_at_once():
    """Nobody to share with."""
    assert held(turn(Shares(500, 0, {}), "a")) == {"a": 500}


def test_a_newcomer_takes_what_the_others_have_cut():
    """It waits for their next turn, and has its part at its own."""
    shares = turn(Shares(10, 0, {}), "a")
    shares = turn(shares, "b")
    assert held(shares) == {"a": 10, "b": 0}
    shares = turn(shares, "a")
    assert held(shares) == {"a": 5, "b": 0}
    assert held(turn(shares, "b")) == {"a": 5, "b": 5}


def test_what_is_in_flight_is_cut_only_when_it_has_ended():
    """A call that was sent can't be taken back, so its unit is nobody else's."""
    shares = turn(turn(Shares(10, 0, {}), "a"), "b")
    shares = turn(shares, "a", in_use=8)
    assert held(turn(shares, "b")) == {"a": 8, "b": 2}
    assert held(turn(turn(turn(shares, "b"), "a", in_use=3), "b")) == {"a": 5, "b": 5}


def test_what_a_killed_process_held_is_the_others():
    """Whoever sees that it is gone drops it."""
    shares = turn(turn(turn(turn(Shares(10, 0, {}), "a"), "b"), "a"), "b")
    assert held(turn(shares, "a", gone={"b"})) == {"a": 10}


def test_a_process_is_not_gone_for_itself():
    """Whoever takes a turn is there, however late; what it held may be another's by then."""
    shares = turn(Shares(10, 0, {}), "a")
    assert held(turn(shares, "a", gone={"a"})) == {"a": 10}
    assert held(turn(turn(shares, "b", gone={"a"}), "a")) == {"b": 10, "a": 0}


def test_what_one_leaves_is_the_others():
    """Nothing is kept for one that has nothing to send."""
    shares = turn(turn(turn(turn(Shares(10, 0, {}), "a"), "b"), "a"), "b")
    assert held(turn(leave(shares, "a"), "b")) == {"b": 10}


def test_a_process_that_had_its_time_makes_room_only_where_others_have_none():
    """With enough for all, nobody moves."""
    shares = turn(turn(Shares(1, 0, {}), "a"), "b")
    assert held(turn(shares, "a")) == {"a": 1, "b": 0}
    assert held(turn(turn(shares, "a", is_done=True), "b")) == {"a": 0, "b": 1}
    alone = turn(Shares(1, 0, {}), "a")
    assert held(turn(alone, "a", is_done=True)) == {"a": 1}


def test_turns_are_rarer_the_more_take_them():
    """A bucket takes one change of an object a second; a turn is good for several."""
    pace = Pace()
    for members in (1, 2, 3, 10, 500):
        assert members / pace.turn_of(members) <= 1
        assert pace.ttl_of(members) >= 3 * pace.turn_of(members)
        assert pace.valid_s(pace.ttl_of(members)) > 4 * pace.turn_of(members)


def test_a_member_is_gone_when_its_last_turn_was_seen_too_long_ago():
    """By the watcher's own clock, from when it first saw the turn; another turn starts anew."""
    watch = Watch()
    shares = Shares(1, 1, {"a": Member(1, 1, beat=7, ttl_s=10.0)})
    again = Shares(1, 1, {"a": Member(1, 1, beat=8, ttl_s=10.0)})
    assert watch.gone(shares, 100.0) == set()
    assert watch.gone(shares, 110.0) == set()
    assert watch.gone(again, 115.0) == set()
    assert watch.gone(again, 125.0) == set()
    assert watch.gone(again, 125.1) == {"a"}


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["turn", "turn", "turn", "done", "leave", "crash"]), st.integers(0, 7), st.integers(0, 12)
    ),
    max_size=60,
)


@hypothesis_settings(max_examples=60)
@given(st.integers(1, 12), _STEPS)
def test_never_more_than_the_whole_and_soon_a_fair_part(whole, steps):
    """Any turns, joins, leaves and crashes; when these end, two rounds give each its part, and all of it is held."""
    shares, dead = Shares(whole, 0, {}), set()
    for what, number, in_use in steps:
        who = f"p{number}"
        if what == "crash":
            dead |= {who} & shares.members.keys()
        elif what == "leave":
            shares = leave(shares, who)
        else:
            dead.discard(who)
            shares = turn(shares, who, in_use=in_use, gone=dead, is_done=what == "done")
            dead &= shares.members.keys()
        assert shares.free >= 0
        assert all(member.units >= 0 for member in shares.members.values())
    living = [who for who in shares.members if who not in dead]
    assume(living)
    for _ in range(2):
        for who in living:
            shares = turn(shares, who, gone=dead)
    assert shares.members.keys() == set(living)
    assert shares.free == 0
    assert held(shares) == {who: part_of(shares, who) for who in living}
    assert max(held(shares).values()) - min(held(shares).values()) <= 1


@given(st.integers(1, 5), st.integers(1, 14), st.randoms())
def test_nobody_starves(whole, members, random):
    """With more members than units each has one again and again, whatever the order of turns within a round."""
    names = [f"p{n}" for n in range(members)]
    shares, rounds = Shares(whole, 0, {}), 3 * (-(-members // whole) + 2)
    had = dict.fromkeys(names, 0)
    for _ in range(rounds):
        for who in random.sample(names, members):
            shares = turn(shares, who, is_done=shares.held(who) > 0)
            had[who] += shares.held(who) > 0
            assert shares.free >= 0
    assert min(had.values()) >= 2
