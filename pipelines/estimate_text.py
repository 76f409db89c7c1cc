"""An estimate beside what came, in one line; for the end of a run and for an output's status."""

from decimal import Decimal
from typing import Any

from pipelines.text import money


def estimate_line(estimate: dict[str, Any] | None) -> str | None:
    """Return what was expected of a run's calls, what came, and by how much it differs.

    Args:
        estimate: the summary's "estimate" (`estimate_run.compare`); None for runs that have none.

    Returns:
        One line; None where there is nothing to compare, such as a run that sent nothing.
    """
    if estimate is None or not estimate["requests"]:
        return None
    parts = [
        _cost(estimate["usd_per_request"], estimate["requests"]),
        _tokens("input", estimate["input_tokens_per_request"]),
        _tokens("output", estimate["output_tokens_per_request"]),
    ]
    return "; ".join(parts)


def _cost(usd: dict[str, Any], requests: int) -> str:
    if usd["estimated"] is None and usd["actual"] is None:
        return f"cost unknown ({usd['unknown']})"
    expected, actual = (
        money(None if usd[name] is None else Decimal(usd[name]) * requests) for name in ("estimated", "actual")
    )
    return f"{expected} expected, {actual} came{_percent(usd['error'])}"


def _tokens(name: str, tokens: dict[str, float | None]) -> str:
    expected, actual = (_count(tokens[which]) for which in ("estimated", "actual"))
    return f"{name} {expected} tokens a call, {actual} came{_percent(tokens['error'])}"


def _count(tokens: float | None) -> str:
    if tokens is None:
        return "unknown"
    return f"{tokens:,.1f}" if tokens < 100 else f"{tokens:,.0f}"


def _percent(error: float | None) -> str:
    return "" if error is None else f" ({error:+.0%})"
