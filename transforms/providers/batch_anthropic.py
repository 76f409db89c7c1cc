"""Anthropic's Message Batches: requests inline in the create, results as a stream of lines (providers.md 4.4, 4.5)."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson

from transforms.providers import batch_states
from transforms.providers.anthropic import Anthropic
from transforms.providers.batch_base import BatchPage, CreateFacts, FilePart, InlineCreate
from transforms.providers.batch_inline import InlineTransport
from transforms.providers.batch_lines import as_bytes, empty_line, unreadable_line
from transforms.providers.reading import clean, count, mapping, parse_json, words
from transforms.records.batch import BatchLine, BatchProblem, BatchState, BatchStatus
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpRequest, HttpResponse
from transforms.records.settings import ModelSettings

_MAX_REQUESTS = 100_000
_MAX_BYTES = 256_000_000
_HEAD, _TAIL = b'{"requests":[', b"]}"
_PATH = "/v1/messages/batches"

_NOT_IN_BATCHES = "Anthropic's batches do not take it"
_REFUSED: Mapping[str, str] = dict.fromkeys(
    ("speed", "store", "previous_thread_event_id", "cache_hint", "context_hint"), _NOT_IN_BATCHES
)

#: The HTTP status that real time gives with each error type (4.6); an errored row says only the type.
_STATUS: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_UNFINISHED: Mapping[str, CallError] = {
    "canceled": CallError(FailureKind.CANCELLED, "the batch was cancelled before this request was run", "canceled"),
    "expired": CallError(FailureKind.EXPIRED, "the batch expired before this request was run", "expired"),
}


class AnthropicBatch(InlineTransport):
    """Satisfies `BatchApi`. Batches carry no metadata and show no progress: only results tell whose a batch is.

    Args:
        settings: the job's `model`.
        provider: built from the same settings; gives the address, the headers and the reading of answers.
    """

    can_cancel = True
    body_path: tuple[str, ...] = ("result", "message")
    shows_progress = False

    def __init__(self, settings: ModelSettings, provider: Anthropic) -> None:
        batch_states.refuse_extras(settings, _REFUSED)
        if settings.params.extra.get("max_tokens") == 0:
            batch_states.refuse_extras(settings, {"max_tokens": f"{_NOT_IN_BATCHES} as 0"})
        self.limits = batch_states.limits_below(_MAX_REQUESTS, _MAX_BYTES, len(_HEAD) + len(_TAIL))
        self.request_model = provider.request_model
        self._provider = provider

    def line(self, custom_id: str, body: dict[str, Any]) -> bytes:
        """Return the line of the request file for one request."""
        return orjson.dumps({"custom_id": custom_id, "params": body})

    def create(self, key: str | None, facts: CreateFacts, input_file_id: str | None) -> HttpRequest | InlineCreate:  # noqa: ARG002 - nothing but the requests goes in
        """Return the create around the lines of the request file."""
        return InlineCreate(self._provider.base_url + _PATH, self._provider.all_headers(key), _HEAD, _TAIL)

    def read_batch(self, response: HttpResponse) -> BatchState | CallError:
        """Read the reply to a create, a status check or a cancel; an archived batch is RESULTS_GONE."""
        state = _state(mapping(parse_json(response.body))) if 200 <= response.status < 300 else None
        if state is None:
            return batch_states.refusal(self._provider, response)
        if state.status is BatchStatus.GONE:
            return CallError(FailureKind.RESULTS_GONE, state.problems[0].message, state.problems[0].code)
        return state

    def read_status(self, provider_batch_id: str, response: HttpResponse) -> BatchState | CallError:
        """Read the reply to a status check; a batch that is unknown or archived is GONE."""
        state = _state(mapping(parse_json(response.body))) if 200 <= response.status < 300 else None
        if state is None:
            state = batch_states.gone(provider_batch_id, response, is_typed=True)
        return batch_states.status_refusal(self._provider, response) if state is None else state

    def status(self, key: str | None, provider_batch_id: str) -> HttpRequest:
        """Return a status check."""
        return self._get(key, f"{_PATH}/{quote(provider_batch_id, safe='')}")

    def listing(self, key: str | None, since_s: float) -> HttpRequest:  # noqa: ARG002 - there is no filter
        """Return the request for the first page of batches, newest first."""
        return self._get(key, f"{_PATH}?limit={batch_states.PAGE_SIZE}")

    def read_page(self, key: str | None, response: HttpResponse) -> BatchPage | CallError:
        """Read a page of a listing."""

        def following(last_id: str) -> HttpRequest:
            query = urlencode({"limit": batch_states.PAGE_SIZE, "after_id": last_id})
            return self._get(key, f"{_PATH}?{query}")

        return batch_states.read_page(self._provider, response, _state, following)

    def is_ours(self, state: BatchState, facts: CreateFacts, since_s: float) -> bool | None:
        """Return False where time or size rule it out, else None: the batch may be ours."""
        return batch_states.may_be(state, facts, since_s)

    def cancel(self, key: str | None, provider_batch_id: str) -> HttpRequest | None:
        """Return the cancel request."""
        url = f"{self._provider.base_url}{_PATH}/{quote(provider_batch_id, safe='')}/cancel"
        return HttpRequest("POST", url, self._bare_headers(key), b"")

    def results(self, key: str | None, state: BatchState) -> Sequence[FilePart]:
        """Return the download of the results; their address is the documented one where the batch names none.

        Raises:
            ConfigError: the results are said to be on another host than the API.
        """
        if not state.is_terminal or state.status is BatchStatus.GONE:
            return ()
        own = f"{self._provider.base_url}{_PATH}/{quote(state.provider_batch_id, safe='')}/results"
        url = state.results_url or own
        if _origin(url) != _origin(own):
            raise ConfigError(
                f"model.base_url: the results of batch {state.provider_batch_id} are said to be at {_shown(url)}, "
                f"not at {_shown(own)}; the key is not sent there. Give the address that serves both"
            )
        headers = self._bare_headers(key) | {"accept": "application/binary"}
        return (FilePart("results", HttpRequest("GET", url, headers, b""), None),)

    def read_line(self, line: bytes) -> BatchLine:
        """Read `{"custom_id", "result": {"type", "message" | "error"}}`."""
        data = parse_json(line)
        row = mapping(data)
        custom_id = words(row.get("custom_id"))
        if custom_id is None:
            return unreadable_line(line, data)
        result = mapping(row.get("result"))
        kind = result.get("type")
        if kind == "succeeded":
            return BatchLine(custom_id, HttpResponse(200, {}, as_bytes(result.get("message"))), None)
        if kind == "errored":
            return _errored(custom_id, result.get("error"))
        error = _UNFINISHED.get(str(kind))
        return empty_line(custom_id, line) if error is None else BatchLine(custom_id, None, error)

    def _get(self, key: str | None, path: str) -> HttpRequest:
        return HttpRequest("GET", self._provider.base_url + path, self._bare_headers(key), b"")

    def _bare_headers(self, key: str | None) -> dict[str, str]:
        """Return the headers of a request without a body."""
        headers = self._provider.all_headers(key)
        headers.pop("content-type", None)
        return headers


def _errored(custom_id: str, envelope: Any) -> BatchLine:
    """Return an errored row as the response that real time gives: the error's type stands for the status."""
    outer = mapping(envelope)
    error = mapping(outer.get("error")) or outer
    status = _STATUS.get((words(error.get("type")) or "").lower(), 500)
    body = {"type": "error", "error": error, "request_id": outer.get("request_id")}
    return BatchLine(custom_id, HttpResponse(status, {}, as_bytes(body)), None, words(outer.get("request_id")))


def _state(body: Mapping[str, Any]) -> BatchState | None:
    """Read a message batch; None when it has no id.

    total is always known; completed and failed (errored, cancelled and expired together) only at the end.
    """
    batch_id = words(body.get("id"))
    if batch_id is None:
        return None
    raw = words(body.get("processing_status")) or ""
    ended = raw.strip().lower() == "ended"
    counts = {name: count(value) for name, value in mapping(body.get("request_counts")).items()}
    known = [value for value in counts.values() if value is not None]
    status, word, is_known = (_ending(body, counts), clean(raw, 100), True) if ended else batch_states.status_word(raw)
    succeeded = counts.get("succeeded") if ended else None
    archived = words(body.get("archived_at"))
    return BatchState(
        provider_batch_id=batch_id,
        status=BatchStatus.GONE if archived else status,
        raw_status=batch_states.DELETED if archived else word,
        is_known=is_known,
        total=sum(known) if known else None,
        completed=succeeded,
        failed=None if succeeded is None else sum(known) - succeeded,
        created_at_s=batch_states.time_s(body.get("created_at")),
        expires_at_s=batch_states.time_s(body.get("expires_at")),
        results_url=words(body.get("results_url")),
        problems=(BatchProblem("archived", f"the results were deleted at {clean(archived, 50)}"),) if archived else (),
    )


def _ending(body: Mapping[str, Any], counts: Mapping[str, int | None]) -> BatchStatus:
    """Return how an ended batch ended (12.2): by what became of the requests that did not finish."""
    if counts.get("canceled") or (body.get("cancel_initiated_at") and not counts.get("expired")):
        return BatchStatus.CANCELLED
    return BatchStatus.EXPIRED if counts.get("expired") else BatchStatus.COMPLETED


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port; an address that can't be read is nobody's."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return "", None, None


def _shown(url: str) -> str:
    scheme, host, port = _origin(url)
    return clean(f"{scheme}://{host}:{port}", 200) if host else clean(url, 200)
