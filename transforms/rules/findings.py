"""What in a run's facts somebody should look at: each rule takes counts and gives a Finding, or None.

A finding nobody needs teaches people to skip findings, so each rule asks for two things: an effect that is worth an
hour of somebody's time, and enough cases that it is no accident. `rules/drift.py` compares two runs in the same way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["info", "warning", "serious"]

#: Fewer cases than this are told one by one in the dead letters; as a share they say nothing.
FEWEST_CASES = 5

#: Each answer that is cut, refused or filtered was paid for and gave nothing. Well-set jobs stay below 1 %; twice that
#: is worth an hour.
LOST_SHARE = 0.02
#: The default of limits.max_dead_letter_ratio: this alone would end the run with exit code 1.
LOST_SHARE_SERIOUS = 0.05

#: With a schema in the provider's native form, next to no answer needs a repair; of small models some do. At 5 % the
#: job pays 5 % of its requests twice, which a simpler schema would save.
REPAIR_SHARE = 0.05
#: One in five: the model doesn't understand what it is asked for.
REPAIR_SHARE_SERIOUS = 0.20

#: One word for 19 of 20 rows is rare among labels that were worth a question, and common when a model doesn't look.
DOMINANT_SHARE = 0.95
#: Below this many answers 95 % is a handful of others.
DOMINANT_FEWEST = 100
#: Two options (spam or not, true or false) are often as rare as this; only a constant is odd then.
DOMINANT_FEWEST_CONSTANT = 300

#: Costs follow the lengths of texts, whose logarithms are about normal: six of their deviations beyond the median is
#: one call in a thousand million. The deviation is the median one (MAD), which the outliers themselves don't move.
OUTLIER_DEVIATIONS = 6.0
#: And ten times the median at least: requests of nearly the same length have a deviation of nearly 0.
OUTLIER_FACTOR = 10.0
#: Fewer calls have no typical cost.
OUTLIER_FEWEST = 100
#: Outliers that together are less of the bill than this are not worth a look.
OUTLIER_BILL_SHARE = 0.02
OUTLIER_BILL_SHARE_WARNING = 0.10
_MAD_TO_SIGMA = 1.4826

#: Short sums ("No defect is named.") repeat by right; a third of all answers alike don't.
ALIKE_SHARE = 0.10
ALIKE_SHARE_WARNING = 0.30
ALIKE_SHARE_SERIOUS = 0.60
ALIKE_FEWEST = 20
#: Texts of fewer words are labels, which `dominant_value` looks at.
ALIKE_FEWEST_WORDS = 5

_ORDER: dict[Severity, int] = {"serious": 0, "warning": 1, "info": 2}
_SHOWN_TEXT = 120


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at.

    Attributes:
        title: one line with the number that matters.
        detail: what it means and what to do.
        value: the measure that the rule compares: a share, a factor or a distance.
        rows: some row ids to look at.
    """

    code: str
    severity: Severity
    title: str
    detail: str
    value: float
    rows: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return asdict(self) | {"value": float(f"{self.value:.6g}"), "rows": list(self.rows)}


def sorted_findings(findings: Sequence[Finding | None]) -> list[Finding]:
    """Return the findings that there are, the gravest first."""
    return sorted((found for found in findings if found), key=lambda found: _ORDER[found.severity])


def find_truncation(
    truncated: int, replies: int, limit: int | None, longest: int | None, rows: Sequence[str]
) -> Finding | None:
    """Judge how many answers were cut at the output limit.

    Args:
        truncated: replies that were cut.
        replies: all replies.
        limit: model.params.max_output_tokens, where it is set.
        longest: tokens of the longest answer that was not cut.
        rows: some rows whose answers were cut.
    """
    share = truncated / replies if replies else 0.0
    if truncated < FEWEST_CASES or share < LOST_SHARE:
        return None
    now = f" (now {limit:,})" if limit else ""
    whole = f" The longest whole answer has {longest:,} tokens." if longest else ""
    return Finding(
        "truncation_share",
        _lost_severity(share),
        f"{percent(share)} of the answers were cut off",
        f"{truncated:,} of {replies:,} answers reached the output limit, were paid for, and gave dead letters."
        f"{whole} Raise model.params.max_output_tokens{now}, or ask for shorter answers.",
        share,
        tuple(rows),
    )


def find_refusals(refused: int, filtered: int, replies: int, rows: Sequence[str]) -> Finding | None:
    """Judge how many answers the model refused or a content filter held back; `replies` includes both."""
    share = (refused + filtered) / replies if replies else 0.0
    if refused + filtered < FEWEST_CASES or share < LOST_SHARE:
        return None
    parts = [f"the model refused {refused:,}"] if refused else []
    parts += [f"a content filter held back {filtered:,}"] if filtered else []
    return Finding(
        "refusals",
        _lost_severity(share),
        f"{percent(share)} of the answers were refused or filtered",
        f"Of {replies:,} answers {' and '.join(parts)}. Look at some of these rows: reword the prompt if they are "
        "harmless, leave them out if they are not, or ask another model.",
        share,
        tuple(rows),
    )


def find_repairs(
    repaired: int, healed: int, answered: int, cost_usd: str | None, rows: Sequence[str]
) -> Finding | None:
    """Judge how many answers did not fit the schema.

    Args:
        repaired: requests that were asked once more because their answer did not fit.
        healed: of these, those whose second answer was a normal one.
        answered: requests whose first answer was a normal one.
        cost_usd: what the repairs cost, as people read it.
        rows: some of their rows.
    """
    share = repaired / answered if answered else 0.0
    if repaired < FEWEST_CASES or share < REPAIR_SHARE:
        return None
    cost = f", which cost {cost_usd}" if cost_usd else ""
    return Finding(
        "repair_share",
        "serious" if share >= REPAIR_SHARE_SERIOUS else "warning",
        f"{percent(share)} of the answers had to be repaired",
        f"{repaired:,} of {answered:,} answers did not fit answer.schema and were asked once more{cost}; "
        f"{healed:,} then got an answer. Simplify answer.schema, say in the prompt what each member means, or ask a "
        "stronger model.",
        share,
        tuple(rows),
    )


def find_dominant_value(
    field: str, counts: Mapping[str, int], options: int | None, rows: Sequence[str] = ()
) -> Finding | None:
    """Judge whether one value takes nearly all answers of a field.

    Args:
        field: the field's path.
        counts: answers by value.
        options: how many values the schema allows; None where it does not say: the values seen then count.
        rows: some rows that have the most frequent value.
    """
    total = sum(counts.values())
    allowed = options or len(counts)
    if allowed < 2 or total < DOMINANT_FEWEST:
        return None
    value, count = max(counts.items(), key=lambda item: item[1])
    share = count / total
    is_constant = count == total
    if share < DOMINANT_SHARE or (allowed == 2 and not (is_constant and total >= DOMINANT_FEWEST_CONSTANT)):
        return None
    return Finding(
        "dominant_value",
        "warning" if is_constant and allowed > 2 else "info",
        f'{field} is "{value}" in {"every answer" if is_constant else f"{percent(share)} of the answers"}',
        f"{count:,} of {total:,} answers, though {allowed} values are possible. Read some of these rows: if others "
        "would be right, say in the prompt when each value holds, give an example of each, or ask a stronger model.",
        share,
        tuple(rows),
    )


def outlier_bound(log_median: float, log_mad: float) -> float:
    """Return the cost above which a call is an outlier.

    Args:
        log_median: median of the natural logarithms of the calls' costs.
        log_mad: median of their absolute deviations from it.
    """
    distance = max(OUTLIER_DEVIATIONS * _MAD_TO_SIGMA * log_mad, math.log(OUTLIER_FACTOR))
    return math.exp(log_median + distance)


def find_cost_outliers(
    outliers: int, calls: int, outlier_usd: float, total_usd: float, largest_factor: float, rows: Sequence[str]
) -> Finding | None:
    """Judge the calls that cost far more than their like.

    Args:
        outliers: calls above the `outlier_bound` of their model and mode.
        calls: all calls that cost something.
        outlier_usd: what the outliers cost together.
        total_usd: what all cost.
        largest_factor: the dearest call's cost in medians.
        rows: the rows of the dearest calls.
    """
    share = outlier_usd / total_usd if total_usd else 0.0
    if not outliers or calls < OUTLIER_FEWEST or share < OUTLIER_BILL_SHARE:
        return None
    many = "1 call costs" if outliers == 1 else f"{outliers:,} calls cost"
    return Finding(
        "cost_outliers",
        "warning" if share >= OUTLIER_BILL_SHARE_WARNING else "info",
        f"{many} {percent(share)} of the bill",
        f"{many} far more than the others of {calls:,}, up to {largest_factor:,.0f} times the median. Look at these "
        "rows: cut what the template takes from long columns, or lower model.params.max_output_tokens.",
        share,
        tuple(rows),
    )


def find_near_duplicates(
    field: str, alike: int, sampled: int, answers: int, example: str, rows: Sequence[str]
) -> Finding | None:
    """Judge the largest group of free-text answers that say almost the same.

    Args:
        field: the field's path.
        alike: answers in the group, of those sampled.
        sampled: different requests whose answers were compared.
        answers: how many there are in all.
        example: one of the group.
        rows: some rows of the group.
    """
    share = alike / sampled if sampled else 0.0
    if alike < ALIKE_FEWEST or share < ALIKE_SHARE or len(example.split()) < ALIKE_FEWEST_WORDS:
        return None
    severity: Severity = "warning" if share >= ALIKE_SHARE_WARNING else "info"
    shown = " ".join(example.split())
    shown = shown if len(shown) <= _SHOWN_TEXT else shown[: _SHOWN_TEXT - 3] + "..."
    among = f"{sampled:,} answers" if sampled == answers else f"a sample of {sampled:,} of {answers:,} answers"
    return Finding(
        "near_duplicate_answers",
        "serious" if share >= ALIKE_SHARE_SERIOUS else severity,
        f"{percent(share)} of the answers in {field} are almost alike",
        f'{alike:,} of {among} to different questions read like: "{shown}". Check that the template shows the model '
        "what differs between rows, and ask for what is particular to each.",
        share,
        tuple(rows),
    )


def percent(share: float) -> str:
    """Return a share as people read it: 0.4 %, 12 %, 152 %; 0 % and 100 % only where it is none and all."""
    value = share * 100
    if value in (0.0, 100.0) or value > 100:
        return f"{value:,.0f} %"
    if 10 <= value <= 99:
        return f"{value:.0f} %"
    return f"{min(max(value, 0.1), 99.9):.1f} %"


def _lost_severity(share: float) -> Severity:
    return "serious" if share >= LOST_SHARE_SERIOUS else "warning"
