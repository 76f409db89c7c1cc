"""Numbers that look random and are a function of what they are drawn from.

The sandbox never uses a clock or a random generator to decide an answer or a fault: the same request, attempt and
seed give the same numbers on every machine (splitmix64 over a BLAKE2b hash).
"""

from hashlib import blake2b

_MASK = (1 << 64) - 1


def derive(*parts: bytes | str | int) -> int:
    """Return a 64-bit number that depends on every part and on their order."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def unit(*parts: bytes | str | int) -> float:
    """Return a number in [0, 1) that depends on every part."""
    return (derive(*parts) >> 11) / (1 << 53)


class Draws:
    """A row of numbers that follows from one starting number."""

    __slots__ = ("_state",)

    def __init__(self, start: int) -> None:
        self._state = start & _MASK

    def next(self) -> int:
        """Return the next 64-bit number."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, limit: int) -> int:
        """Return a number in [0, limit)."""
        return self.next() % limit

    def between(self, low: int, high: int) -> int:
        """Return a number in [low, high], both included."""
        return low + self.next() % (high - low + 1)

    def unit(self) -> float:
        """Return a number in [0, 1)."""
        return (self.next() >> 11) / (1 << 53)
