"""From the character rule's counts to a model's own: a line and its error, learned from counts that are known.

Pure. Known counts are those of earlier calls of the same job, or of a tokenizer; the rule's are `tokens.prompt_tokens`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import StatisticsError, linear_regression, median

#: Fewer known counts than this say nothing.
MIN_COUNTS = 20
#: Of the character rule without any calibration: `tokens.estimate_tokens` says where it comes from.
GENERAL_ERROR = 0.35
_MIN_ERROR = 0.001


@dataclass(frozen=True, slots=True)
class TokenScale:
    """How a model's token counts follow from the character rule's: factor x rule + fixed, for each request.

    Attributes:
        method: what it rests on, for people: "characters", "tiktoken o200k_base", "calibrated on 48 calls of run R".
        factor: tokens of the model to tokens of the rule.
        fixed: tokens that each request has besides, or less: a schema or a frame that is counted otherwise.
        error: nine in ten requests are within this share of what is expected; never below 0.001.
        known_from: the same as words: "a general rule", "the model's own tokenizer", "this job's own calls".
    """

    method: str
    factor: float
    fixed: float
    error: float
    known_from: str

    def tokens(self, ruled: float, requests: int = 1) -> float:
        """Return the expected tokens of so many requests that have `ruled` tokens together by the rule."""
        return max(0.0, ruled * self.factor + self.fixed * requests)


#: The character rule as it is.
CHARACTERS = TokenScale("characters", 1.0, 0.0, GENERAL_ERROR, "a general rule")


def fit_scale(method: str, known_from: str, counts: Sequence[tuple[int, int]]) -> TokenScale | None:
    """Learn a scale: the median ratio, or the line of least squares where that is closer to nine in ten.

    Args:
        method: as in TokenScale.
        known_from: as in TokenScale.
        counts: (the rule's tokens, the known tokens) of requests; pairs with a 0 don't count.

    Returns:
        None with fewer than MIN_COUNTS pairs.
    """
    pairs = [(ruled, known) for ruled, known in counts if ruled > 0 and known > 0]
    if len(pairs) < MIN_COUNTS:
        return None
    lines = [(median(known / ruled for ruled, known in pairs), 0.0), *_least_squares(pairs)]
    error, factor, fixed = min((_error(pairs, *line), *line) for line in lines)
    return TokenScale(method, factor, fixed, max(error, _MIN_ERROR), known_from)


def _least_squares(pairs: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """Return [(factor, fixed)], or [] where no line with more tokens for longer texts fits."""
    try:
        line = linear_regression([ruled for ruled, _ in pairs], [known for _, known in pairs])
    except StatisticsError:  # all are equally long
        return []
    shortest = min(ruled for ruled, _ in pairs)
    is_sound = line.slope > 0 and line.slope * shortest + line.intercept > 0
    return [(line.slope, line.intercept)] if is_sound else []


def _error(pairs: Sequence[tuple[int, int]], factor: float, fixed: float) -> float:
    """Return the share by which nine in ten known counts miss the expected ones at most."""
    misses = sorted(abs(known / (ruled * factor + fixed) - 1) for ruled, known in pairs)
    return misses[-(-9 * len(misses) // 10) - 1]
