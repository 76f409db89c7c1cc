"""Bins of a histogram: of a width that people read easily, and few, however long the tail is."""

import math
from dataclasses import dataclass

#: As many bars as a picture of a hand's width shows apart.
MOST_BINS = 24

_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Bins:
    """Equal bins from `start`, each `width` wide and without its upper end; a further one holds what lies above.

    Attributes:
        count: the equal bins.
        top: the highest value; the further bin, from the last end to it, is there where values lie above the end.
    """

    start: float
    width: float
    count: int
    top: float

    @property
    def has_tail(self) -> bool:
        """Whether values lie above the equal bins."""
        return self.top >= self.start + self.count * self.width

    def edges(self, index: int) -> tuple[float, float]:
        """Return the ends of a bin; index `count` is the tail's."""
        low = _tidy(self.start + index * self.width)
        return (low, self.top) if index == self.count else (low, _tidy(low + self.width))


def make_bins(low: float, high: float, top: float, *, whole: bool = False) -> Bins:
    """Return at most MOST_BINS + 1 equal bins for the values from `low` to `high`, and a tail up to `top`.

    Args:
        low: the lowest value.
        high: where the tail begins, such as the 99th percentile; low <= high <= top.
        top: the highest value.
        whole: the values are whole numbers, so that no bin is narrower than 1.
    """
    width = _nice((high - low) / MOST_BINS) if high > low else _nice(abs(low) / MOST_BINS) or 1.0
    if whole:
        width = max(1.0, width)
    start = math.floor(low / width) * width
    return Bins(_tidy(start), width, math.floor((high - start) / width) + 1, top)


def _nice(width: float) -> float:
    """Return the least of 1, 2, 5, 10 times a power of ten that is not below `width`."""
    if width <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(width))
    return next(power * step for step in _STEPS if power * step >= width * (1 - 1e-9))


def _tidy(value: float) -> float:
    return float(f"{value:.12g}")
