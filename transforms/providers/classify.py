"""How failed calls become failure kinds: by code, by words, by status, in that order (providers.md 2.6, 9, 12.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.providers import error_text
from transforms.providers.headers import openai_limits, retry_after_s, should_retry, wait_for_reset_s
from transforms.providers.reading import NOT_JSON, QUOTE_LIMIT, clean, first, mapping, quote, words
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpResponse, RateLimits
from transforms.records.usage import Usage

_STATUS: Mapping[int, FailureKind] = {
    401: FailureKind.AUTH,
    402: FailureKind.QUOTA_EXHAUSTED,
    403: FailureKind.PERMISSION,
    404: FailureKind.NOT_FOUND,
    408: FailureKind.TIMEOUT,
    409: FailureKind.CONFLICT,
    413: FailureKind.REQUEST_TOO_LARGE,
    429: FailureKind.RATE_LIMITED,
    503: FailureKind.OVERLOADED,
    504: FailureKind.TIMEOUT,
    524: FailureKind.TIMEOUT,
    529: FailureKind.OVERLOADED,
}

#: Codes and types of OpenAI and those that speak like it, in lower case.
_CODES: Mapping[str, FailureKind] = {
    "context_length_exceeded": FailureKind.CONTEXT_LENGTH_EXCEEDED,
    "exceed_context_size_error": FailureKind.CONTEXT_LENGTH_EXCEEDED,
    "insufficient_quota": FailureKind.QUOTA_EXHAUSTED,
    "credit_balance_exhausted": FailureKind.QUOTA_EXHAUSTED,
    "organization_spend_limit_exceeded": FailureKind.QUOTA_EXHAUSTED,
    "project_spend_limit_exceeded": FailureKind.QUOTA_EXHAUSTED,
    "organization_usage_limit_exceeded": FailureKind.QUOTA_EXHAUSTED,
    "content_policy_violation": FailureKind.CONTENT_FILTERED,
    "content_filter": FailureKind.CONTENT_FILTERED,
    "responsibleaipolicyviolation": FailureKind.CONTENT_FILTERED,
    "invalid_prompt": FailureKind.CONTENT_FILTERED,
    "moderation_blocked": FailureKind.CONTENT_FILTERED,
    "bio_policy": FailureKind.CONTENT_FILTERED,
    "misalignment_policy_violation": FailureKind.CONTENT_FILTERED,
    "invalid_api_key": FailureKind.AUTH,
    "model_not_found": FailureKind.NOT_FOUND,
    "deploymentnotfound": FailureKind.NOT_FOUND,
    "operationnotsupported": FailureKind.NOT_FOUND,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "slow_down": FailureKind.RATE_LIMITED,
    "server_is_overloaded": FailureKind.OVERLOADED,
    "service_unavailable_error": FailureKind.OVERLOADED,
    "unavailable_error": FailureKind.OVERLOADED,
    "server_error": FailureKind.SERVER_ERROR,
}


@dataclass(frozen=True, slots=True)
class ErrorWords:
    """The parts of an error body: code and type as strings or None, the message, and the status it names."""

    code: str | None
    type: str | None
    message: str | None
    status: int | None = None

    @property
    def name(self) -> str | None:
        """The provider's own name of the error: its code, else its type, else the number it gave as code."""
        return self.code or self.type or (None if self.status is None else str(self.status))


def error_words(data: Any) -> ErrorWords | None:
    """Return what an error body says, or None when it holds no error in any known shape.

    Shapes: {"error": {...}} (OpenAI, Azure, vLLM, llama.cpp), {"error": "text"}, the same keys at top level (old
    vLLM, gateways), {"detail": ...} (FastAPI, Mistral).
    """
    body = mapping(data)
    error = body.get("error")
    if error:
        found = mapping(error)
        return _words(found) if found else ErrorWords(None, None, words(error))
    if words(body.get("message")) and ("code" in body or "type" in body or body.get("object") == "error"):
        return _words(body)
    detail = body.get("detail")
    if detail:
        return ErrorWords(None, None, words(detail) or words(first(detail).get("msg")))
    return None


def _words(error: Mapping[str, Any]) -> ErrorWords:
    code = error.get("code")
    number = code if isinstance(code, int) and not isinstance(code, bool) else None
    return ErrorWords(words(code), words(error.get("type")), words(error.get("message")), number)


def status_kind(status: int) -> FailureKind:
    """Return the kind a status stands for when nothing else is known."""
    kind = _STATUS.get(status)
    if kind is not None:
        return kind
    if status >= 500:
        return FailureKind.SERVER_ERROR
    if 400 <= status < 500:
        return FailureKind.INVALID_REQUEST
    return FailureKind.INVALID_RESPONSE


def openai_kind(status: int, error: ErrorWords) -> FailureKind:
    """Return the kind of an error in OpenAI's shape; status is the HTTP status, or what the error names as such."""
    billing = _CODES.get((error.type or "").lower())
    if billing is FailureKind.QUOTA_EXHAUSTED:
        return billing
    kind = _CODES.get((error.code or "").lower()) or billing
    if kind is not None and not (kind is FailureKind.RATE_LIMITED and status == 429):
        return kind
    return text_kind(status, f"{error.code} {error.message}")


def text_kind(status: int, text: str) -> FailureKind:
    """Return the kind by an error's words, as far as they matter at this status, else by the status alone."""
    if status in {403, 429} and error_text.is_billing_stop(text):
        return FailureKind.QUOTA_EXHAUSTED
    if status == 429 and error_text.is_out_of_capacity(text):
        return FailureKind.OVERLOADED
    if status in {200, 400, 413, 422, 500} and error_text.is_context_overflow(text):
        return FailureKind.CONTEXT_LENGTH_EXCEEDED
    return status_kind(status)


def call_error(
    kind: FailureKind,
    message: str,
    response: HttpResponse,
    *,
    code: str | None = None,
    wait_s: float | None = None,
    limits: RateLimits | None = None,
    usage: Usage | None = None,
    may_be_billed: bool = False,
) -> CallError:
    """Build a CallError with the server's wishes from the headers.

    Args:
        kind: what happened.
        message: for people; cleaned here.
        response: where the retry headers are.
        code: the provider's own word.
        wait_s: seconds to wait by the body, used when the headers say nothing.
        limits: rate limits whose resets count when they are the only hint (429 only).
        usage: token counts, where the body had them.
        may_be_billed: the answer was produced though we could not use it; time-outs and lost replies always may be.
    """
    wait = retry_after_s(response.headers)
    if wait is None:
        wait = wait_s
    if wait is None and response.status == 429:
        wait = wait_for_reset_s(limits)
    wish = should_retry(response.headers)
    return CallError(
        kind=kind,
        message=clean(message),
        code=None if code is None else clean(code, 100),
        retry_after_s=wait,
        no_retry=wish is False,
        force_retry=wish is True,
        usage=usage or Usage(),
        may_be_billed=may_be_billed or kind is FailureKind.TIMEOUT or response.status in {408, 502, 504, 524},
    )


def unreadable(response: HttpResponse, data: Any, usage: Usage | None = None, what: str | None = None) -> CallError:
    """Return the error for a body without an answer or an error in it; quotes its first 500 bytes (10.2)."""
    success = 200 <= response.status < 300
    kind = FailureKind.INVALID_RESPONSE if success else text_kind(response.status, quote(response.body))
    if what is None:
        what = "a body that is not JSON" if data is NOT_JSON else "JSON without an answer"
    if 300 <= response.status < 400:
        what += f" and a redirect to {response.headers.get('location', 'nowhere')[:QUOTE_LIMIT]}; check model.base_url"
    message = f"HTTP {response.status} with {what}: {quote(response.body)}"
    return call_error(
        kind, message, response, usage=usage, may_be_billed=success, limits=openai_limits(response.headers, None)
    )
