"""What a benchmark found: figures beside the targets of the design, with what they were computed from."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """One number, and the bound it should keep.

    Attributes:
        name: what was measured.
        value: the number; None when it could not be measured, and `note` says why.
        unit: of value and target.
        target: the bound, or None for a number that is only informative.
        bound: whether value must be at least or at most the target.
        note: what the number includes, in a few words.
    """

    name: str
    value: float | None
    unit: str
    target: float | None = None
    bound: Literal["at least", "at most"] = "at least"
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return met, missed, unmeasured, or nothing where there is no target."""
        if self.target is None:
            return "" if self.value is not None else "unmeasured"
        if self.value is None:
            return "unmeasured"
        kept = self.value >= self.target if self.bound == "at least" else self.value <= self.target
        return "met" if kept else "missed"

    def to_json(self) -> dict[str, Any]:
        """Return the figure and its verdict as JSON values."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass
class Outcome:
    """The figures of one benchmark, the settings it ran with, and the raw samples behind them."""

    benchmark: str
    settings: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "benchmark": self.benchmark,
            "settings": self.settings,
            "figures": [figure.to_json() for figure in self.figures],
            "samples": self.samples,
        }


def median(samples: Sequence[dict[str, Any]], key: str) -> float:
    """Return the median of one value over samples."""
    return float(statistics.median(sample[key] for sample in samples))
