"""How the processes of one run divide its limits: whole units of the limits, held by members who take turns.

A member takes a turn every few seconds: it reads what all hold, cuts its own units to its part, and takes what others
have left free up to its part. Every turn is decided on what was read and stored only if that is still so (compare and
swap), so it holds at every moment: **the units of all members add up to at most the whole.** Nobody gives orders, and
a member that dies is dropped by whoever sees that it has not taken a turn for its time to live.

With more members than units the oldest in the queue hold one each; a member that has had its time goes to the queue's end.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

#: A unit is worth at least this much a minute, so that what it lets out at once, a sixth of it (`providers.buckets`), is
#: one request, or the tokens of a usual one: members can't have more at once between them than one process alone.
_LEAST_REQUESTS = 6
_LEAST_TOKENS = 6000


@dataclass(frozen=True, slots=True)
class Pace:
    """How often turns are taken.

    Attributes:
        turn_s: seconds between the turns of a member, at least: a change is a file written and synced.
        per_member_s: seconds between the turns of different members: a bucket takes one change of an object a second.
        ttl_turns: a member is dropped when it has missed so many turns. It stops sending a `margin` of that before, since
            clocks of different machines do not run equally fast.
    """

    turn_s: float = 3.0
    per_member_s: float = 1.0
    ttl_turns: int = 5
    margin: float = 0.1

    def turn_of(self, members: int) -> float:
        """Return the seconds between the turns of each of so many members."""
        return max(self.turn_s, members * self.per_member_s)

    def ttl_of(self, members: int) -> float:
        """Return for how many seconds the turn of one of so many members is good."""
        return self.ttl_turns * self.turn_of(members)

    def valid_s(self, ttl_s: float) -> float:
        """Return for how many seconds of that time to live the member itself relies on it."""
        return ttl_s * (1 - self.margin)


@dataclass(frozen=True, slots=True)
class Member:
    """What one process holds.

    Attributes:
        units: of the limits.
        since: its place in the queue: the number of the change by which it joined, or went to the end.
        beat: changes with each of its turns.
        ttl_s: seconds that its last turn is good for.
    """

    units: int
    since: int
    beat: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Shares:
    """What all processes of a run hold. `changes` counts the changes made so far; members by a name of their own."""

    whole: int
    changes: int
    members: dict[str, Member]

    def held(self, who: str) -> int:
        """Return the units that a process holds; 0 for one that is no member."""
        return self.members[who].units if who in self.members else 0

    @property
    def free(self) -> int:
        """Units that nobody holds."""
        return self.whole - sum(member.units for member in self.members.values())


@dataclass(frozen=True, slots=True)
class Look:
    """What a process saw at the beginning of its turn: what it holds, and what its part is now."""

    held: int
    part: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What a turn has brought.

    Attributes:
        units: held from now on, of the whole.
        valid_until: monotonic seconds; after it, somebody else may hold them.
        valid_until_unix_s: the same as Unix time: a machine that was suspended may have stopped its monotonic clock.
        next_turn_s: seconds until the next turn.
        is_first: no process of this run has ever held anything.
    """

    units: int
    valid_until: float
    valid_until_unix_s: float
    next_turn_s: float
    is_first: bool


def whole_units(max_in_flight: int, requests_per_minute: int | None, tokens_per_minute: int | None) -> int:
    """Return in how many units a run's limits are divided: each is worth at least one call in flight."""
    bounds = [max_in_flight]
    if requests_per_minute is not None:
        bounds.append(requests_per_minute // _LEAST_REQUESTS)
    if tokens_per_minute is not None:
        bounds.append(tokens_per_minute // _LEAST_TOKENS)
    return max(1, min(bounds))


def slots_of(units: int, whole: int, max_in_flight: int) -> int:
    """Return how many calls may be in flight on so many units; never more in all than max_in_flight."""
    return max_in_flight * units // whole


def units_of(in_flight: int, whole: int, max_in_flight: int) -> int:
    """Return the fewest units that allow so many calls in flight; the inverse of `slots_of`."""
    return -(-in_flight * whole // max_in_flight)


def ask(shares: Shares, who: str, gone: AbstractSet[str], *, is_done: bool) -> Shares:
    """Return the shares with `who` in the queue and without those that are gone, if any of these is another.

    Args:
        shares: as read.
        who: whose turn it is; a newcomer joins at the end, with nothing.
        gone: members that have missed their turns.
        is_done: `who` has had its time: it goes to the queue's end, where there is not enough for all.
    """
    members = {name: member for name, member in shares.members.items() if name == who or name not in gone}
    mine = members.get(who)
    if mine is None:
        members[who] = Member(units=0, since=shares.changes + 1, beat=0, ttl_s=0.0)
    elif is_done and len(members) > shares.whole:
        members[who] = replace(mine, since=shares.changes + 1)
    return replace(shares, members=members)


def part_of(shares: Shares, who: str) -> int:
    """Return a member's part: all the same but for one unit; the parts of all add up to the whole.

    With fewer units than members the first in the queue have one each.
    """
    least, rest = divmod(shares.whole, len(shares.members))
    mine = (shares.members[who].since, who)
    place = sum((member.since, name) < mine for name, member in shares.members.items())
    return least + (place < rest)


def take_turn(shares: Shares, who: str, in_use: int, beat: int, ttl_s: float) -> Shares:
    """Return the shares after a member's turn: it holds its part, or what there is of it yet.

    Args:
        shares: as `ask` gave them.
        who: whose turn it is.
        in_use: the units that its calls in flight need; it holds on to these until the calls have ended.
        beat: one that none of its turns had before.
        ttl_s: how long the turn is good for.
    """
    mine = shares.members[who]
    units = min(max(part_of(shares, who), in_use), shares.free + mine.units)
    member = Member(units, mine.since, beat, ttl_s)
    return replace(shares, changes=shares.changes + 1, members=shares.members | {who: member})


def leave(shares: Shares, who: str) -> Shares:
    """Return the shares without a member; what it held is free."""
    members = {name: member for name, member in shares.members.items() if name != who}
    return replace(shares, changes=shares.changes + 1, members=members)


class Watch:
    """What one process has seen of the others' turns, by its own clock: no two machines' clocks are compared."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def gone(self, shares: Shares, now: float) -> set[str]:
        """Return the members whose last turn was first seen longer ago than it is good for.

        Args:
            shares: as just read.
            now: monotonic seconds, taken after the reading.
        """
        last, self._seen = self._seen, {}
        gone = set()
        for who, member in shares.members.items():
            beat, at = last.get(who, (None, now))
            if beat != member.beat:
                at = now
            self._seen[who] = (member.beat, at)
            if now - at > member.ttl_s:
                gone.add(who)
        return gone
