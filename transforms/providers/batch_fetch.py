r"""The results of a terminal batch, downloaded to files of lines.

A BatchState enters; files `<folder>/<kind>.jsonl` leave, each whole or not there: written under a temporary name,
synced, renamed. Bytes are kept as they came, so that only `\\n` ends a line. Fetching again replaces the files.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from transforms.providers.batch_base import BatchApi, FilePart
from transforms.providers.batch_exchange import Exchanger, request_summary
from transforms.providers.batch_http import BatchHttp, DownloadResult
from transforms.providers.batch_states import NOT_FOUND, is_own_error
from transforms.providers.inline_results import split_results
from transforms.providers.reading import parse_json
from transforms.records.batch import BatchState, BatchStatus
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpResponse

_TRIES = 6
_TIMEOUT_S = 3600.0
#: Against a body that never ends; 50,000 answers of 32,000 tokens are below it.
_MAX_BYTES = 16 * 1024**3


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file of results on this machine. kind: output, error, or results (both in one); byte_count may be 0 (Azure)."""

    kind: str
    path: str
    file_id: str | None
    byte_count: int


class ResultFetcher:
    """Downloads results; see `BatchClient`, whose step it is. ask: the step `status`."""

    def __init__(
        self,
        api: BatchApi,
        key: str | None,
        http: BatchHttp,
        exchanger: Exchanger,
        ask: Callable[[str], BatchState | CallError],
    ) -> None:
        self._api = api
        self._key = key
        self._http = http
        self._exchanger = exchanger
        self._ask = ask

    def fetch(self, state: BatchState, folder: Path) -> list[Downloaded] | CallError:
        """Download every part there is; see `BatchClient.fetch`."""
        folder.mkdir(parents=True, exist_ok=True)
        known = self._with_results(state)
        if isinstance(known, CallError):
            return known
        if known.has_inline_results:
            path = folder / "results.jsonl"
            inline = self._exchanger.retried(lambda: self._inline(known, path), _TRIES)
            return inline if isinstance(inline, CallError) else [inline]
        files = []
        for part in self._api.results(self._key, known):
            file = self._part(part, folder / f"{part.kind}.jsonl")
            if isinstance(file, Downloaded):
                files.append(file)
            elif part.kind != "error" or file.kind is not FailureKind.RESULTS_GONE:
                return file
        return files

    def _with_results(self, state: BatchState) -> BatchState | CallError:
        """Ask again for a state that names no results where only a status reply can (OpenRouter).

        One that was put together from what was written down does not say that they are inline; taking that for no
        results would pay for all of them again.
        """
        if self._api.uses_files or state.has_inline_results or self._api.results(self._key, state):
            return state
        asked = self._exchanger.retried(lambda: self._ask(state.provider_batch_id), _TRIES)
        return asked if isinstance(asked, CallError) else _unavailable(asked) or asked

    def _part(self, part: FilePart, path: Path) -> Downloaded | CallError:
        return self._exchanger.retried(lambda: self._download(part, path), _TRIES)

    def _download(self, part: FilePart, path: Path) -> Downloaded | CallError:
        request = part.request
        with _new_file(path) as file:
            summary = request_summary(request.method, request.url, len(request.body))
            byte_count, _ = self._exchanger.make(
                "download",
                summary,
                lambda: self._http.download(request, file, _TIMEOUT_S, _MAX_BYTES),
                lambda result: self._read_part(part, result),
            )
            if isinstance(byte_count, CallError):
                return byte_count
            _publish(file, path)
        return Downloaded(part.kind, str(path), part.file_id, byte_count)

    def _read_part(self, part: FilePart, result: DownloadResult) -> int | CallError:
        if result.status == 200:
            return result.byte_count
        response = _as_response(result)
        error = self._api.read_batch(response)
        if not isinstance(error, CallError):
            return _no_results(result)
        if result.status == 410 or (part.kind == "error" and _is_no_such_file(response)):
            return replace(error, kind=FailureKind.RESULTS_GONE)
        # A file may be listed before it can be had, and a gateway knows nothing of it: no 404 may cost paid results.
        return replace(error, kind=FailureKind.INVALID_RESPONSE) if result.status == 404 else error

    def _inline(self, state: BatchState, path: Path) -> Downloaded | CallError:
        """Spool the status reply to disk, then split its results into lines."""
        batch_id = state.provider_batch_id
        request = self._api.status(self._key, batch_id)
        with _new_file(path) as lines, _new_file(path) as spool:
            byte_count, _ = self._exchanger.make(
                "download",
                request_summary(request.method, request.url, 0),
                lambda: self._http.download(request, spool, _TIMEOUT_S, _MAX_BYTES),
                lambda result: self._read_inline(batch_id, result, spool, lines),
            )
            if isinstance(byte_count, CallError):
                return byte_count
            _publish(lines, path)
        return Downloaded("results", str(path), None, byte_count)

    def _read_inline(self, batch_id: str, result: DownloadResult, spool: BinaryIO, lines: BinaryIO) -> int | CallError:
        if result.status == 200:
            try:
                return split_results(spool, lines)
            except ValueError as exc:
                return CallError(FailureKind.INVALID_RESPONSE, f"the batch's results can't be read: {exc}")
        state = self._api.read_status(batch_id, _as_response(result))
        if isinstance(state, CallError):
            return state
        return _unavailable(state) or _no_results(result)


def _is_no_such_file(response: HttpResponse) -> bool:
    """Tell a 404 in the words of a provider that has files, all of which have OpenAI's shape."""
    return response.status == 404 and is_own_error(parse_json(response.body))


def _unavailable(state: BatchState) -> CallError | None:
    """Return why a batch's results can't be had, or None when there is no reason."""
    if state.withheld is not None:
        return CallError(FailureKind.RESULTS_WITHHELD, state.withheld)
    if state.status is BatchStatus.GONE and state.raw_status == NOT_FOUND:
        return CallError(FailureKind.INVALID_RESPONSE, "the provider does not find the batch that it has ended")
    if state.status is BatchStatus.GONE:
        return CallError(FailureKind.RESULTS_GONE, "the provider has deleted the results")
    if not state.is_terminal:
        return CallError(FailureKind.INVALID_RESPONSE, f"the batch is said to be {state.raw_status} again")
    return None


def _no_results(result: DownloadResult) -> CallError:
    return CallError(FailureKind.INVALID_RESPONSE, f"HTTP {result.status} in the place of results")


def _as_response(result: DownloadResult) -> HttpResponse:
    return HttpResponse(result.status, result.headers, result.error_body)


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Lend a file of a temporary name beside `path`; it is removed afterwards unless it was published."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with temporary.open("x+b") as file:
        try:
            yield file
        finally:
            temporary.unlink(missing_ok=True)


def _publish(file: BinaryIO, path: Path) -> None:
    """Give a complete file its name; a crash before leaves no file there, and the download is made again."""
    file.flush()
    os.fsync(file.fileno())
    Path(file.name).replace(path)
