"""What response headers say: when to come back, whether to, and how much of a rate limit is left.

Pure and total: a header that can't be read counts as absent. Sources: providers.md 1.9, 2.6, 3.6, 4.6, 5.2, 11.2.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from transforms.records.reply import RateLimits

#: A reset header's value and the present (Unix seconds, None when unknown) to seconds from now, or None.
ResetReader = Callable[[str, float | None], float | None]

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)(ms|s|m|h|d)")
_MAX_COUNT = 2**63


def number(text: str | None) -> float | None:
    """Return a finite number of at least 0, or None."""
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def duration_s(text: str) -> float | None:
    """Return seconds of a Go-style duration (6m0s, 1.5s, 12ms) or of a plain number of seconds, or None."""
    text = text.strip()
    total, end = 0.0, 0
    for part in _DURATION.finditer(text):
        if part.start() != end:
            return None
        total += float(part[1]) * _UNIT_SECONDS[part[2]]
        end = part.end()
    if end:
        return total if end == len(text) else None
    return number(text)


def http_date_s(text: str | None) -> float | None:
    """Return the Unix time of an HTTP date in any of its three forms, or None."""
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def iso_time_s(text: str) -> float | None:
    """Return the Unix time of an RFC 3339 time, or None."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def duration_reset(text: str, now_s: float | None) -> float | None:  # noqa: ARG001 - the form of a ResetReader
    """Read OpenAI's `6m0s` and Azure's plain seconds."""
    return duration_s(text)


def iso_time_reset(text: str, now_s: float | None) -> float | None:
    """Read Anthropic's RFC 3339 time."""
    return _from_now(iso_time_s(text), now_s)


def epoch_ms_reset(text: str, now_s: float | None) -> float | None:
    """Read OpenRouter's milliseconds since the epoch."""
    value = number(text)
    return None if value is None else _from_now(value / 1000, now_s)


def _from_now(moment_s: float | None, now_s: float | None) -> float | None:
    return None if moment_s is None or now_s is None else max(0.0, moment_s - now_s)


def date_s(headers: Mapping[str, str]) -> float | None:
    """Return the server's own clock, from its Date header."""
    return http_date_s(headers.get("date"))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds the server asked to wait: retry-after-ms first, else retry-after in any form.

    An HTTP date is measured against the response's own Date header, so no clock of ours is involved; without a
    Date header it says nothing.
    """
    millis = number(headers.get("retry-after-ms"))
    if millis is not None:
        return millis / 1000
    text = headers.get("retry-after")
    if text is None:
        return None
    seconds = duration_s(text)
    return seconds if seconds is not None else _from_now(http_date_s(text), date_s(headers))


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return the server's order to retry (True) or not to (False), or None when it gave none."""
    text = headers.get("x-should-retry")
    return None if text is None else {"true": True, "false": False}.get(text.strip().lower())


_Names = tuple[str, str, str]
_Bucket = tuple[int | None, int | None, float | None]
_SILENT: _Bucket = (None, None, None)


def _names(pattern: str) -> _Names:
    return pattern.format("limit"), pattern.format("remaining"), pattern.format("reset")


_OPENAI_REQUESTS = _names("x-ratelimit-{}-requests")
_OPENAI_TOKENS = _names("x-ratelimit-{}-tokens")
_OPENAI_PROJECT = _names("x-ratelimit-{}-project-tokens")
_ANTHROPIC_REQUESTS = _names("anthropic-ratelimit-requests-{}")
_ANTHROPIC_TOKENS = _names("anthropic-ratelimit-tokens-{}")
_ANTHROPIC_INPUT = _names("anthropic-ratelimit-input-tokens-{}")
_ANTHROPIC_OUTPUT = _names("anthropic-ratelimit-output-tokens-{}")
_OPENROUTER = _names("x-ratelimit-{}")


def openai_limits(headers: Mapping[str, str], now_s: float | None) -> RateLimits | None:
    """Read x-ratelimit-{limit,remaining,reset}-{requests,tokens}; the tighter of token and project-token bucket."""
    requests = _bucket(headers, _OPENAI_REQUESTS, duration_reset, now_s)
    tokens = _bucket(headers, _OPENAI_TOKENS, duration_reset, now_s)
    if _OPENAI_PROJECT[1] in headers:
        tokens = _tighter(tokens, _bucket(headers, _OPENAI_PROJECT, duration_reset, now_s))
    return _limits(requests, tokens)


def anthropic_limits(headers: Mapping[str, str], now_s: float | None) -> RateLimits | None:
    """Read anthropic-ratelimit-*: requests, and of the token buckets the combined or else the tighter one."""
    requests = _bucket(headers, _ANTHROPIC_REQUESTS, iso_time_reset, now_s)
    tokens = _bucket(headers, _ANTHROPIC_TOKENS, iso_time_reset, now_s)
    if tokens == _SILENT:
        tokens = _tighter(
            _bucket(headers, _ANTHROPIC_INPUT, iso_time_reset, now_s),
            _bucket(headers, _ANTHROPIC_OUTPUT, iso_time_reset, now_s),
        )
    return _limits(requests, tokens)


def openrouter_limits(headers: Mapping[str, str], now_s: float | None) -> RateLimits | None:
    """Read X-RateLimit-{Limit,Remaining,Reset}, which come with OpenRouter's own 429s only."""
    return _limits(_bucket(headers, _OPENROUTER, epoch_ms_reset, now_s), _SILENT)


def wait_for_reset_s(limits: RateLimits | None) -> float | None:
    """Return the seconds until every bucket that is empty has been refilled, or None when none is known empty."""
    if limits is None:
        return None
    waits = [
        reset
        for remaining, reset in (
            (limits.remaining_requests, limits.reset_requests_s),
            (limits.remaining_tokens, limits.reset_tokens_s),
        )
        if remaining == 0 and reset is not None
    ]
    return max(waits, default=None)


def _bucket(headers: Mapping[str, str], names: _Names, read_reset: ResetReader, now_s: float | None) -> _Bucket:
    """Return (limit, remaining, reset). A limit of 0 or -1 means the whole bucket is unknown (Azure, 3.6)."""
    limit_text = headers.get(names[0])
    remaining_text = headers.get(names[1])
    if limit_text is None and remaining_text is None:
        return _SILENT
    limit, remaining = _count(limit_text), _count(remaining_text)
    if limit_text is not None and not limit:
        return _SILENT
    reset_text = headers.get(names[2])
    reset = None if reset_text is None else read_reset(reset_text, now_s)
    if remaining == 0 and limit is None and reset is None:
        return _SILENT
    return limit, remaining, reset


def _count(text: str | None) -> int | None:
    if text is not None and len(text) < 19 and text.isdecimal():
        return int(text)
    value = number(text)
    return None if value is None or value >= _MAX_COUNT else int(value)


def _tighter(one: _Bucket, other: _Bucket) -> _Bucket:
    if one[1] is None or other[1] is None:
        return one if other[1] is None else other
    return one if one[1] <= other[1] else other


def _limits(requests: _Bucket, tokens: _Bucket) -> RateLimits | None:
    return None if requests == tokens == _SILENT else RateLimits(*requests, *tokens)
