"""What the batch adapters read alike: states, counts, times, listings and refusals (providers.md 1.4, 1.10, 12.2).

Everything here takes any JSON and raises nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from transforms.providers.base import Provider
from transforms.providers.batch_base import BatchPage, CreateFacts
from transforms.providers.classify import ErrorWords, error_words, unreadable
from transforms.providers.headers import iso_time_s, number
from transforms.providers.reading import clean, count, mapping, parse_json, plain, words
from transforms.records.batch import TERMINAL, BatchLimits, BatchProblem, BatchState, BatchStatus
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpRequest, HttpResponse
from transforms.records.settings import ModelSettings

#: Items asked for per page of a listing; every provider allows it.
PAGE_SIZE = 100

#: Our clock and the provider's may differ by this much, seconds, when a batch is looked for by its time.
CLOCK_SLACK_S = 600.0

#: `BatchState.raw_status` of a batch that is GONE. DELETED: for certain. NOT_FOUND: as far as one look can tell; the
#: provider may not show the batch yet, or not to this key.
DELETED = "deleted"
NOT_FOUND = "not_found"

_HEADROOM_PERCENT = 5
_MAX_TIME_S = 1e11

#: The words of OpenAI, Azure and OpenRouter, in lower case; Azure's samples write `canceled` too.
_WORDS: Mapping[str, BatchStatus] = {
    "validating": BatchStatus.VALIDATING,
    "in_progress": BatchStatus.RUNNING,
    "finalizing": BatchStatus.FINALIZING,
    "cancelling": BatchStatus.CANCELLING,
    "canceling": BatchStatus.CANCELLING,
    "completed": BatchStatus.COMPLETED,
    "failed": BatchStatus.FAILED,
    "expired": BatchStatus.EXPIRED,
    "cancelled": BatchStatus.CANCELLED,
    "canceled": BatchStatus.CANCELLED,
}


def limits_below(requests: int, size: int, envelope: int) -> BatchLimits:
    """Return a provider's limits with 5 % taken off.

    Args:
        requests: the provider's limit on requests.
        size: its limit on bytes.
        envelope: bytes that the request holds around the request file.
    """
    keep = 100 - _HEADROOM_PERCENT
    return BatchLimits(requests * keep // 100, size * keep // 100 - envelope)


def refuse_extras(settings: ModelSettings, reasons: Mapping[str, str]) -> None:
    """Raise ConfigError for the first key of model.params.extra that the provider's batches do not take."""
    for name, reason in reasons.items():
        if name in settings.params.extra:
            raise ConfigError(f"model.params.extra.{name}: {reason}; remove it or set batching.mode: per_request")


def status_word(raw: Any) -> tuple[BatchStatus, str, bool]:
    """Return our status, the provider's word, and whether we know it; a word that is new to us counts as RUNNING."""
    word = words(raw) or ""
    known = _WORDS.get(word.strip().lower())
    return known or BatchStatus.RUNNING, clean(word, 100), known is not None


def time_s(value: Any) -> float | None:
    """Return Unix seconds of a Unix number, a number in a string, or an RFC 3339 time; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    seconds = number(str(value))
    if seconds is None and isinstance(value, str):
        return iso_time_s(value)
    return seconds if seconds is not None and 0 < seconds < _MAX_TIME_S else None


def pairs(value: Any) -> dict[str, str]:
    """Return the metadata of a batch: its text values."""
    return {key: text for key, text in mapping(value).items() if isinstance(text, str)}


def problems(errors: Any) -> tuple[BatchProblem, ...]:
    """Return the reasons in `{"data": [{code, message, line}]}`, or the one in `{"message"}`; () when there are none."""
    body = mapping(errors)
    items = body.get("data")
    if not isinstance(items, list):
        items = [body] if words(body.get("message")) else []
    return tuple(_problem(mapping(item)) for item in items if isinstance(item, dict))


def _problem(item: Mapping[str, Any]) -> BatchProblem:
    """Return one reason; Azure writes the line number as a string."""
    line = item.get("line")
    if isinstance(line, str) and line.strip().isdecimal() and len(line) < 19:
        line = int(line)
    code = words(item.get("code"))
    message = words(item.get("message")) or code or plain(item)
    return BatchProblem(None if code is None else clean(code, 100), clean(message), count(line))


def openai_state(
    body: Mapping[str, Any], reasons: tuple[BatchProblem, ...], *, has_results: bool = False
) -> BatchState | None:
    """Read a batch object of OpenAI's shape (2.5); None when it has no id.

    `failed` is REJECTED when nothing of it was run: it gives reasons, no request of it is counted as done, and it has
    no results, which some failed batches of Azure have beside their reasons (3.4). A total says nothing: it may be
    counted before the batch is rejected.

    Args:
        body: the batch object.
        reasons: why it failed, if it did.
        has_results: there are results beside it (OpenRouter).
    """
    batch_id = words(body.get("id"))
    if batch_id is None:
        return None
    status, raw, is_known = status_word(body.get("status"))
    counts = mapping(body.get("request_counts"))
    total, completed, failed = (count(counts.get(name)) for name in ("total", "completed", "failed"))
    output_file_id, error_file_id = words(body.get("output_file_id")), words(body.get("error_file_id"))
    may_have_run = completed or failed or output_file_id or error_file_id or has_results
    if status is BatchStatus.FAILED and reasons and not may_have_run:
        status = BatchStatus.REJECTED
    return BatchState(
        provider_batch_id=batch_id,
        status=status,
        raw_status=raw,
        is_known=is_known,
        total=total,
        completed=completed,
        failed=failed,
        created_at_s=time_s(body.get("created_at")),
        expires_at_s=time_s(body.get("expires_at")),
        input_file_id=words(body.get("input_file_id")),
        output_file_id=output_file_id,
        error_file_id=error_file_id,
        problems=reasons,
        metadata=pairs(body.get("metadata")),
        model=words(body.get("model")),
    )


def refusal(provider: Provider, response: HttpResponse) -> CallError:
    """Return the error of a reply that holds no batch, no file and no listing; classified as in real time."""
    outcome = provider.read(response)
    if isinstance(outcome, CallError) and not 200 <= response.status < 300:
        return outcome
    data = parse_json(response.body)
    if isinstance(outcome, CallError) and error_words(data) is not None:
        return outcome
    return unreadable(response, data, what="a body without what was asked for")


def is_own_error(data: Any, *, is_typed: bool = False) -> bool:
    """Tell an error in the provider's own shape, `{"error": {...}}`, from those of gateways in front of it.

    Args:
        data: the JSON of the body.
        is_typed: the provider (Anthropic) marks its errors with `"type": "error"` beside.
    """
    body = mapping(data)
    return bool(mapping(body.get("error"))) and (not is_typed or body.get("type") == "error")


def gone(provider_batch_id: str, response: HttpResponse, *, is_typed: bool = False) -> BatchState | None:
    """Return the state GONE when a status check says that there is no such batch any more, else None.

    That is a 410 (DELETED); a 404 in the provider's own shape (a gateway's says nothing of the batch); and, for
    batches long past, an `invalid_request_error` at 200 (providers.md 10.1). The last two are NOT_FOUND.

    Args:
        provider_batch_id: the batch that was asked for.
        response: the reply.
        is_typed: as `is_own_error` takes it.
    """
    data = parse_json(response.body)
    error = error_words(data)
    if response.status == 410:
        word = DELETED
    elif error is not None and is_own_error(data, is_typed=is_typed) and _is_not_found(response.status, error):
        word = NOT_FOUND
    else:
        return None
    message = (error.message if error else None) or f"HTTP {response.status}: the batch is gone"
    problem = BatchProblem(error.name if error else None, clean(message))
    return BatchState(provider_batch_id, BatchStatus.GONE, word, problems=(problem,))


def _is_not_found(status: int, error: ErrorWords) -> bool:
    return status == 404 or (status == 200 and error.type == "invalid_request_error")


def status_refusal(provider: Provider, response: HttpResponse) -> CallError:
    """Return the error of a status check; a 404 that is not the provider's own may pass, so it stops no run."""
    error = refusal(provider, response)
    return replace(error, kind=FailureKind.INVALID_RESPONSE) if response.status == 404 else error


def read_page(
    provider: Provider,
    response: HttpResponse,
    read_item: Callable[[Mapping[str, Any]], BatchState | None],
    next_request: Callable[[str], HttpRequest],
) -> BatchPage | CallError:
    """Read a page of a listing, `{"data", "last_id", "has_more"}`.

    A page that is not wholly understood is an error: what can't be read might be the batch that is looked for.

    Args:
        provider: for the classification of errors.
        response: the page.
        read_item: reads one batch; None when it is none.
        next_request: returns the request for the page after an id.
    """
    data = parse_json(response.body)
    body = mapping(data)
    items = body.get("data")
    if not 200 <= response.status < 300 or not isinstance(items, list):
        return refusal(provider, response)
    states = [read_item(mapping(item)) for item in items]
    found = tuple(state for state in states if state is not None)
    if len(found) < len(states):
        return unreadable(response, data, what="a listing with something other than batches")
    if body.get("has_more") is not True:
        return BatchPage(found, None)
    last = words(body.get("last_id")) or (found[-1].provider_batch_id if found else None)
    if not found or last is None:
        return unreadable(response, data, what="a listing that goes on after nothing")
    return BatchPage(found, next_request(last))


def may_be(state: BatchState, facts: CreateFacts, since_s: float) -> bool | None:
    """Return False for a batch that is too old or of another size, else None: only its custom ids can tell.

    A batch that has not been counted yet (validating, no total) may be ours.
    """
    if state.created_at_s is not None and state.created_at_s < since_s - CLOCK_SLACK_S:
        return False
    is_counted = bool(state.total) or state.status in TERMINAL
    return False if is_counted and state.total is not None and state.total != facts.request_count else None
