"""The steps of a batch's life at its provider: upload, create, find, status, cancel, fetch.

A BatchApi says how requests and replies look, a BatchHttp makes the exchanges, and every exchange is reported to
`record` before the step returns or raises. Steps return values; a failure that is the provider's or the network's is
a CallError, never an exception. Exceptions: LocalFileError and OSError (this machine's disk), InternalError
(connections closed), ConfigError (a results URL on a foreign host), and whatever `record` raises.

Which step is repeated:

* create: never. What it leaves open is a LostReply, for `find` to settle (providers.md 1.6).
* upload: up to 4 times more. A second copy of the file costs nothing and runs nothing.
* listing and download: up to 4 and 5 times more. They change nothing.
* status and cancel: never; the caller comes again by itself.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, TypeVar, cast

from transforms.providers.batch_base import BatchApi, BatchPage, CreateFacts, InlineCreate
from transforms.providers.batch_exchange import ExchangeName, Exchanger, HttpExchange, request_summary
from transforms.providers.batch_fetch import Downloaded, ResultFetcher
from transforms.providers.batch_http import BatchHttp
from transforms.providers.inline_results import without_results
from transforms.records.batch import BatchState
from transforms.records.failure import RETRYABLE, FailureKind
from transforms.records.reply import CallError, HttpRequest, HttpResponse

__all__ = [
    "Absent",
    "BatchClient",
    "Candidates",
    "Downloaded",
    "Found",
    "HttpExchange",
    "LostReply",
]

#: Statuses of a create after which there is no batch, for certain. 400, 401, 402, 403, 404, 413, 422, 429: every
#: provider's documented refusals (providers.md 2.6, 3.4, 3.6, 4.6, 5.3; Azure's 400 token_limit_exceeded among
#: them). The rest of the 4xx here and the four redirects, which we don't follow, are answers of servers that did not
#: take the request (RFC 9110). All others leave it open, above all 408, 5xx and 529 (someone in between gave up
#: waiting), 409 ("check state first", 4.6), 303, and a 2xx that can't be read.
_REFUSALS = frozenset({301, 302, 307, 308, *range(400, 408), *range(410, 418), 421, 422, 426, 428, 429, 431, 451})

#: How far before the intent a batch may seem to have been created: the provider's clock is not ours.
_CLOCK_SLACK_S = 600.0
#: 100 a page; a day of creates at OpenAI's limit of 2,000 an hour is 480 pages.
_MAX_PAGES = 500

_REPLY_TIMEOUT_S = 120.0
_STATUS_TIMEOUT_S = 900.0
#: Slower than this is not waited for when a body is sent.
_BYTES_PER_S = 200_000
#: A longer status reply holds results (OpenRouter), and is shortened on disk.
_STATUS_BYTES = 1024 * 1024

_T = TypeVar("_T")

_UPLOAD_TRIES = 5
_LISTING_TRIES = 5
_FIRST_FILE_POLL_S = 1.0
_LAST_FILE_POLL_S = 15.0


@dataclass(frozen=True, slots=True)
class LostReply:
    """A create that the provider may have accepted; error says what came instead of its reply."""

    error: CallError


@dataclass(frozen=True, slots=True)
class Found:
    """The batch that the create made, proven by its metadata."""

    state: BatchState


@dataclass(frozen=True, slots=True)
class Candidates:
    """Batches that the create may have made, from a complete listing; only the ids in their results can tell."""

    states: tuple[BatchState, ...]


@dataclass(frozen=True, slots=True)
class Absent:
    """A complete listing holds no batch that the create may have made."""


class BatchClient:
    """Takes batches through their lives. Thread-safe if `record` is.

    Args:
        api: how the provider speaks; key: the secret, or None.
        http: the connections; the caller closes them.
        record: takes each exchange, in the thread of the step; nothing goes on before it returns.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        api: BatchApi,
        key: str | None,
        http: BatchHttp,
        record: Callable[[HttpExchange], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._key = key
        self._http = http
        self._exchanger = Exchanger(record, sleep)
        self._fetcher = ResultFetcher(api, key, http, self._exchanger, self.status)

    def upload(self, facts: CreateFacts, path: str, file_timeout_s: float = 900.0) -> str | CallError:
        """Upload a request file, and wait until it can be used where the provider must process it first.

        Args:
            facts: of the create that will name the file.
            path: the request file.
            file_timeout_s: seconds of waiting for the provider to process it (Azure, providers.md 3.3).

        Returns:
            The file's id, or why there is none.
        """
        upload = self._api.upload(self._key, facts)
        byte_count = Path(path).stat().st_size
        summary = request_summary("POST", upload.url, byte_count)

        def once() -> tuple[str, str] | CallError:
            return self._exchanger.make(
                "upload",
                summary,
                lambda: self._http.upload(upload, path, _sending_s(byte_count)),
                self._api.read_file,
            )[0]

        file = self._exchanger.retried(once, _UPLOAD_TRIES)
        return file if isinstance(file, CallError) else self._usable(*file, file_timeout_s)

    def create(self, facts: CreateFacts, input_file_id: str | None, path: str) -> BatchState | CallError | LostReply:
        """Send the create, once.

        Args:
            facts: what the create says of itself.
            input_file_id: of the uploaded file; None where requests go inline.
            path: the request file.

        Returns:
            The batch; or a CallError when there is certainly none: the provider refused (`_REFUSALS`) or nothing
            was sent; or a LostReply when it stays open.
        """
        create = self._api.create(self._key, facts, input_file_id)
        if isinstance(create, InlineCreate):
            byte_count = len(create.head) + Path(path).stat().st_size + len(create.tail)
            outcome, status = self._exchanger.make(
                "create",
                request_summary("POST", create.url, byte_count),
                lambda: self._http.send_inline(create, path, _sending_s(byte_count)),
                self._api.read_batch,
            )
        else:
            outcome, status = self._exchanger.make(
                "create",
                request_summary(create.method, create.url, len(create.body), create.body),
                lambda: self._http.exchange(create, _REPLY_TIMEOUT_S),
                self._api.read_batch,
            )
        if isinstance(outcome, BatchState):
            return outcome
        is_open = outcome.may_be_billed if status is None else status not in _REFUSALS
        return LostReply(outcome) if is_open else outcome

    def find(self, facts: CreateFacts, intended_at_s: float) -> Found | Candidates | Absent | CallError:
        """Look for the batch of a create whose reply was lost.

        Reads the listing until a whole page is older than the intent by more than 10 minutes, or to its end. A
        listing that turns out not to be newest first is always read to its end.

        Args:
            facts: of the create.
            intended_at_s: Unix seconds at which its intent was written.

        Returns:
            A CallError when the listing could not be read so far: then nothing is known.
        """
        request = self._api.listing(self._key, intended_at_s)
        fitting: dict[str, BatchState] = {}
        for _ in range(_MAX_PAGES):
            page = self._page(request)
            if isinstance(page, CallError):
                return page
            for state in page.states:
                is_ours = self._api.is_ours(state, facts, intended_at_s)
                if is_ours:
                    return Found(state)
                if is_ours is None:
                    fitting[state.provider_batch_id] = state
            if page.next_request is None or _is_past(page, intended_at_s - _CLOCK_SLACK_S):
                return Candidates(tuple(fitting.values())) if fitting else Absent()
            request = page.next_request
        return CallError(FailureKind.INVALID_RESPONSE, f"the list of batches did not end within {_MAX_PAGES} pages")

    def status(self, provider_batch_id: str) -> BatchState | CallError:
        """Ask for a batch's state, once; a reply of any size is read in flat memory."""
        request = self._api.status(self._key, provider_batch_id)
        return self._exchanger.make(
            "status",
            request_summary(request.method, request.url, len(request.body)),
            lambda: self._short_reply(request),
            lambda reply: self._api.read_status(provider_batch_id, reply),
        )[0]

    def cancel(self, provider_batch_id: str) -> BatchState | CallError | None:
        """Ask for a batch's end, once; None where the provider has no cancel. Ask for its state afterwards."""
        request = self._api.cancel(self._key, provider_batch_id)
        return None if request is None else self._exchange("cancel", request, self._api.read_batch)

    def fetch(self, state: BatchState, folder: str) -> list[Downloaded] | CallError:
        """Download the results of a terminal batch to `<folder>/<kind>.jsonl`, whatever its status is.

        Args:
            state: as `status` gave it last, or put together from its ids; what such a one can't say is asked again.
            folder: made if it is not there. A process that dies leaves hidden `.tmp` files in it.

        Returns:
            The files; [] when the batch has none. RESULTS_GONE when the provider has deleted them: an error file
            that is gone is left out instead, since its rows are unpaid and will be missed by their ids.
            RESULTS_WITHHELD: top up and fetch again.
        """
        return self._fetcher.fetch(state, Path(folder))

    def _exchange(
        self, what: ExchangeName, request: HttpRequest, read: Callable[[HttpResponse], _T | CallError]
    ) -> _T | CallError:
        summary = request_summary(request.method, request.url, len(request.body))
        return self._exchanger.make(what, summary, lambda: self._http.exchange(request, _REPLY_TIMEOUT_S), read)[0]

    def _usable(self, file_id: str, state: str, timeout_s: float) -> str | CallError:
        """Wait for a file; time is counted in waits, which double up to 15 s."""
        wait_s, waited_s = _FIRST_FILE_POLL_S, 0.0
        while state == "pending" and self._api.waits_for_file:
            if waited_s >= timeout_s:
                message = f"the provider has not processed the request file within {timeout_s:.0f} s"
                return CallError(FailureKind.TIMEOUT, message)
            self._exchanger.sleep(wait_s)
            waited_s, wait_s = waited_s + wait_s, min(2 * wait_s, _LAST_FILE_POLL_S)
            file = self._exchange("file_status", self._api.file_status(self._key, file_id), self._api.read_file)
            if not isinstance(file, CallError):
                state = file[1]
            elif file.kind not in RETRYABLE:
                return file
        if state == "error":
            return CallError(FailureKind.BATCH_REJECTED, "the provider could not process the request file")
        return file_id

    def _page(self, request: HttpRequest) -> BatchPage | CallError:
        return self._exchanger.retried(
            lambda: self._exchange("listing", request, lambda reply: self._api.read_page(self._key, reply)),
            _LISTING_TRIES,
        )

    def _short_reply(self, request: HttpRequest) -> HttpResponse:
        """Ask for a state; of inline results only the first is in the reply given."""
        with SpooledTemporaryFile(max_size=_STATUS_BYTES) as spool:
            file = cast("BinaryIO", spool)
            result = self._http.download(request, file, _STATUS_TIMEOUT_S)
            if result.status != 200:
                body = result.error_body
            elif result.byte_count > _STATUS_BYTES:
                body = without_results(file)
            else:
                file.seek(0)
                body = file.read()
            return HttpResponse(result.status, result.headers, body)


def _sending_s(byte_count: int) -> float:
    return _REPLY_TIMEOUT_S + byte_count / _BYTES_PER_S


def _is_past(page: BatchPage, since_s: float) -> bool:
    """Whether this page is older, and those after it too, since it is seen to be newest first."""
    times = [state.created_at_s for state in page.states if state.created_at_s is not None]
    return len(times) == len(page.states) > 1 and max(times) < since_s and times[0] > times[-1]
