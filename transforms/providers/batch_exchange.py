"""The record of an HTTP exchange of a batch, and the one place where exchanges are made, reported and repeated.

What the provider's adapter and the connections give enters; an outcome leaves after `record` has taken the exchange.
No record holds a header, and of a URL's query only what is known to be harmless.
"""

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

import orjson

from transforms.providers.batch_http import DownloadResult
from transforms.providers.reading import parse_json
from transforms.providers.transport import transport_error
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpResponse
from transforms.rules.retry import GiveUp, RetryPolicy, decide

ExchangeName = Literal["upload", "file_status", "create", "status", "listing", "download", "cancel"]

#: A request's or a reply's body above this is recorded by its size only.
_SHOWN_BYTES = 256 * 1024
_SHOWN_QUERY = frozenset(
    {"api-version", "limit", "after", "after_id", "before_id", "created_after", "created_before", "status", "order"}
)
#: The provider's id of an exchange (providers.md 1.11), the one that its support asks for first.
_REQUEST_ID_HEADERS = ("apim-request-id", "x-request-id", "request-id", "x-generation-id")

_BACK_OFF_S = 2.0
_RETRY_DEADLINE_S = 4 * 3600.0

_T = TypeVar("_T")
_R = TypeVar("_R", HttpResponse, DownloadResult)


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """One exchange, as it is reported before the step that made it returns.

    Attributes:
        what: the step.
        request_summary: method, url, byte_count of the body (of an upload: of the file), and body where it is short
            and not rows.
        response_summary: the reply's body as it came, HTML included; {"byte_count": n} for a download's 200 and for
            a body above 256 KB; None without a reply.
        status: HTTP status, or None without a reply.
        error: what the step makes of it, or None.
        started_at_us: microseconds since the epoch; latency_ms: until the outcome was known.
        provider_request_id: the provider's id of the exchange, or None.
    """

    what: ExchangeName
    request_summary: dict[str, Any]
    response_summary: bytes | None
    status: int | None
    error: CallError | None
    started_at_us: int
    latency_ms: float
    provider_request_id: str | None


class Exchanger:
    """Makes exchanges, one at a time per caller. Thread-safe if `record` is.

    Args:
        record: takes each exchange before its outcome is given.
        sleep: waits for seconds.
    """

    def __init__(self, record: Callable[[HttpExchange], None], sleep: Callable[[float], None]) -> None:
        self._record = record
        self.sleep = sleep

    def make(
        self,
        what: ExchangeName,
        request_summary: dict[str, Any],
        send: Callable[[], _R],
        read: Callable[[_R], _T | CallError],
    ) -> tuple[_T | CallError, int | None]:
        """Make one exchange, report it, and give its outcome with the HTTP status (None without a reply).

        Raises:
            Exception: what `transport_error` does not know, such as LocalFileError; it is reported before.
        """
        started_at_us, begun = time.time_ns() // 1000, time.monotonic()
        reply: _R | None = None
        unforeseen: Exception | None = None
        outcome: _T | CallError
        try:
            reply = send()
            outcome = read(reply)
        except Exception as exc:  # noqa: BLE001 - raised again below unless the transport's table knows it
            outcome, unforeseen = _explained(exc)
        self._record(
            HttpExchange(
                what=what,
                request_summary=request_summary,
                response_summary=None if reply is None else _reply_summary(reply),
                status=None if reply is None else reply.status,
                error=outcome if isinstance(outcome, CallError) else None,
                started_at_us=started_at_us,
                latency_ms=(time.monotonic() - begun) * 1000,
                provider_request_id=None if reply is None else _request_id(reply.headers),
            )
        )
        if unforeseen is not None:
            raise unforeseen
        return outcome, None if reply is None else reply.status

    def retried(self, once: Callable[[], _T | CallError], tries: int) -> _T | CallError:
        """Try until there is a value, an error that no other try cures, or `tries` are used up (`rules/retry.py`)."""
        policy = RetryPolicy(max_attempts=tries, deadline_s=_RETRY_DEADLINE_S, base_s=_BACK_OFF_S)
        begun = time.monotonic()
        for attempt in itertools.count(1):
            outcome = once()
            if not isinstance(outcome, CallError):
                break
            verdict = decide(outcome, attempt, time.monotonic() - begun, policy, random.random())
            if isinstance(verdict, GiveUp):
                break
            self.sleep(verdict.wait_s)
        return outcome


def request_summary(method: str, url: str, byte_count: int, body: bytes = b"") -> dict[str, Any]:
    """Return what a record says of a request; body: given where it is JSON and holds no rows."""
    summary = {"method": method, "url": shown_url(url), "byte_count": byte_count}
    return {**summary, "body": body.decode("utf-8", "replace")} if 0 < len(body) <= _SHOWN_BYTES else summary


def shown_url(url: str) -> str:
    """Return a URL without user, fragment, and values of the query that are not known to be harmless."""
    parts = urlsplit(url)
    names = [(pair, pair.partition("=")[0]) for pair in parts.query.split("&") if pair]
    query = "&".join(pair if name in _SHOWN_QUERY else f"{name}=[hidden]" for pair, name in names)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _explained(exc: Exception) -> tuple[CallError, Exception | None]:
    try:
        return transport_error(exc), None
    except Exception as unknown:  # noqa: BLE001 - it is `exc`
        message = f"the exchange ended with {type(unknown).__name__}"
        return CallError(FailureKind.CONNECTION_ERROR, message, may_be_billed=True), unknown


def _reply_summary(reply: HttpResponse | DownloadResult) -> bytes:
    if isinstance(reply, DownloadResult):
        return reply.error_body if reply.status != 200 else orjson.dumps({"byte_count": reply.byte_count})
    body = _without_rows(reply.body)
    return body if len(body) <= _SHOWN_BYTES else orjson.dumps({"byte_count": len(reply.body)})


def _without_rows(body: bytes) -> bytes:
    """Leave results out of a status reply (OpenRouter): rows are recorded one by one, as the job's audit wants them."""
    data = parse_json(body) if b'"results"' in body else None
    if not isinstance(data, dict) or not isinstance(data.get("results"), list):
        return body
    return orjson.dumps({**data, "results": []})


def _request_id(headers: dict[str, str]) -> str | None:
    return next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), None)
