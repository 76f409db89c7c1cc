"""Lines of batch results in OpenAI's shape, which Azure and OpenRouter share (providers.md 1.2, 2.5, 5.3)."""

from collections.abc import Mapping
from typing import Any

from transforms.providers.base import Provider
from transforms.providers.reading import NOT_JSON, clean, mapping, parse_json, plain, quote, to_json, words
from transforms.records.batch import BatchLine
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpResponse

#: Codes of rows that were never run, in lower case.
_ENDINGS: Mapping[str, FailureKind] = {
    "batch_expired": FailureKind.EXPIRED,
    "expired": FailureKind.EXPIRED,
    "batch_cancelled": FailureKind.CANCELLED,
    "batch_canceled": FailureKind.CANCELLED,
    "cancelled": FailureKind.CANCELLED,
    "canceled": FailureKind.CANCELLED,
}
#: What an error without an HTTP status is read as: a failure of the provider's.
_NO_STATUS = 500
_CODE_LIMIT = 100


def read_openai_line(line: bytes, provider: Provider) -> BatchLine:
    """Read `{"custom_id", "response": {"status_code", "request_id", "body"} | null, "error": {...} | null}`.

    A row's outcome is its status code, not `error: null`. Where both speak, an error that has an HTTP status is read
    like one in real time, and one that has none stands for itself.

    Args:
        line: without its newline.
        provider: for the classification of errors.
    """
    data = parse_json(line)
    row = mapping(data)
    custom_id = words(row.get("custom_id"))
    if custom_id is None:
        return unreadable_line(line, data)
    answer = mapping(row.get("response"))
    status, body, error = _status(answer.get("status_code")), answer.get("body"), row.get("error")
    provider_request_id = words(answer.get("request_id"))
    if error and not mapping(body).get("error"):
        body = {"error": error}
    if not error and not status:
        error = mapping(body).get("error")
    if status and (not error or (status >= 400 and _ending(error) is None)):
        return BatchLine(custom_id, HttpResponse(status, {}, as_bytes(body)), None, provider_request_id)
    if error:
        return BatchLine(custom_id, None, _row_error(error, provider), provider_request_id)
    return empty_line(custom_id, line, provider_request_id)


def unreadable_line(line: bytes, data: Any) -> BatchLine:
    """Return what is left of a line that names no request: an error that quotes its start."""
    what = "a line that is not JSON" if data is NOT_JSON else "a line without a custom_id"
    error = CallError(FailureKind.INVALID_RESPONSE, f"the results hold {what}: {quote(line)}", may_be_billed=True)
    return BatchLine(None, None, error)


def empty_line(custom_id: str, line: bytes, provider_request_id: str | None = None) -> BatchLine:
    """Return the line of a request that has neither an answer nor an error."""
    message = f"the request's line in the results holds no answer and no error: {quote(line)}"
    error = CallError(FailureKind.INVALID_RESPONSE, message, may_be_billed=True)
    return BatchLine(custom_id, None, error, provider_request_id)


def as_bytes(body: Any) -> bytes:
    """Return a row's body as it would have come over HTTP: text as it is, anything else as JSON."""
    try:
        return body.encode() if isinstance(body, str) else to_json(body)
    except TypeError:
        # Read, but nested too deeply to be written again; no answer is.
        return plain(body).encode()


def _status(value: Any) -> int:
    """Return an HTTP status, or 0 for anything else (status 0 is what a failure without HTTP gets)."""
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    return value if type(value) is int and 100 <= value < 600 else 0


def _ending(error: Any) -> FailureKind | None:
    said = mapping(error)
    for name in ("code", "error_type", "type"):
        kind = _ENDINGS.get((words(said.get(name)) or "").lower())
        if kind is not None:
            return kind
    return None


def _row_error(error: Any, provider: Provider) -> CallError:
    """Return the error of a row that has no HTTP status: an ending by its code, else as real time would read it."""
    said = dict(mapping(error))
    name = words(said.get("code")) or words(said.get("error_type")) or words(said.get("type"))
    said["message"] = words(said.get("message")) or name or plain(error)
    kind = _ending(error)
    if kind is None:
        error_type = words(said.get("error_type"))
        if error_type is not None:
            # OpenRouter says here what its real-time errors say in `metadata`.
            said["metadata"] = {"error_type": error_type}
        outcome = provider.read(HttpResponse(_NO_STATUS, {}, as_bytes({"error": said})))
        if isinstance(outcome, CallError):
            return outcome
        kind = FailureKind.SERVER_ERROR
    return CallError(kind, clean(said["message"]), code=None if name is None else clean(name, _CODE_LIMIT))
