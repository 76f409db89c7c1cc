"""OpenAI's batch API: a file of requests, a batch that names it, two files of results (providers.md 2.4, 2.5)."""

from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import orjson

from transforms.providers import batch_states
from transforms.providers.batch_base import BatchPage, CreateFacts, FilePart, FileUpload, InlineCreate
from transforms.providers.batch_lines import read_openai_line
from transforms.providers.openai_family import OpenAIFamily
from transforms.providers.reading import mapping, parse_json, words
from transforms.records.batch import BatchLine, BatchState
from transforms.records.errors import InternalError
from transforms.records.reply import CallError, HttpRequest, HttpResponse
from transforms.records.settings import ModelSettings

_MAX_REQUESTS = 50_000
_MAX_BYTES = 200_000_000
#: Form fields, boundaries and part headers around the file; it takes a few hundred bytes.
_ENVELOPE_BYTES = 10_000

#: Names of our metadata: three of the 16 pairs of at most 64 and 512 characters that a batch may have.
_BATCH, _ATTEMPT, _RUN = "rowbeam_batch", "rowbeam_attempt", "rowbeam_run"

#: States of an uploaded file, in lower case; the documented ones, and the ends that Azure's enumeration adds.
_READY = frozenset({"processed"})
_BROKEN = frozenset({"error", "failed", "deleted", "deleting", "canceled", "cancelled"})


class OpenAIBatch:
    """Satisfies `BatchApi`, for the chat completions or the Responses API, whichever the settings name.

    Args:
        settings: the job's `model`.
        provider: built from the same settings; gives the address, the headers and the reading of answers.
    """

    uses_files = True
    waits_for_file = False
    can_cancel = True
    body_path: tuple[str, ...] = ("response", "body")
    has_metadata = True
    shows_progress = True
    expires = True
    min_poll_s = 0.0

    file_type: ClassVar[str] = "application/jsonl"
    upload_fields: ClassVar[tuple[tuple[str, str], ...]] = (("purpose", "batch"),)

    def __init__(self, settings: ModelSettings, provider: OpenAIFamily) -> None:
        self.limits = batch_states.limits_below(_MAX_REQUESTS, _MAX_BYTES, _ENVELOPE_BYTES)
        self.request_model = provider.request_model
        self.line_url = "/v1/responses" if settings.api == "responses" else "/v1/chat/completions"
        self.endpoint = self.line_url
        self._provider = provider

    def line(self, custom_id: str, body: dict[str, Any]) -> bytes:
        """Return the line of the request file for one request."""
        return orjson.dumps({"custom_id": custom_id, "method": "POST", "url": self.line_url, "body": body})

    def upload(self, key: str | None, facts: CreateFacts) -> FileUpload:
        """Return the upload of the request file."""
        name = f"{facts.batch_key}.jsonl"
        return FileUpload(self.url("/files"), self._headers(key), self.upload_fields, name, self.file_type)

    def read_file(self, response: HttpResponse) -> tuple[str, str] | CallError:
        """Return (file id, processed | pending | error); OpenAI's files can be used at once, whatever they say."""
        body = mapping(parse_json(response.body))
        file_id = words(body.get("id"))
        if not 200 <= response.status < 300 or file_id is None:
            return self.refused(response)
        state = (words(body.get("status")) or "processed").strip().lower()
        if state in _BROKEN:
            return file_id, "error"
        return file_id, "processed" if state in _READY or not self.waits_for_file else "pending"

    def file_status(self, key: str | None, file_id: str) -> HttpRequest:
        """Return the request for a file's state."""
        return self._get(key, f"/files/{quote(file_id, safe='')}")

    def create(self, key: str | None, facts: CreateFacts, input_file_id: str | None) -> HttpRequest | InlineCreate:
        """Return the create; its metadata proves later whose the batch is."""
        if input_file_id is None:
            raise InternalError(f"batch {facts.batch_key} is to be created before its file is uploaded")
        body = {
            "input_file_id": input_file_id,
            "endpoint": self.endpoint,
            "completion_window": "24h",
            "metadata": _metadata(facts),
        }
        return HttpRequest("POST", self.url("/batches"), self._provider.all_headers(key), orjson.dumps(body))

    def read_batch(self, response: HttpResponse) -> BatchState | CallError:
        """Read the reply to a create, a status check or a cancel."""
        state = _state(parse_json(response.body)) if 200 <= response.status < 300 else None
        return self.refused(response) if state is None else state

    def read_status(self, provider_batch_id: str, response: HttpResponse) -> BatchState | CallError:
        """Read the reply to a status check; a batch that the provider knows no more is GONE."""
        state = self.read_batch(response)
        if isinstance(state, BatchState):
            return state
        vanished = batch_states.gone(provider_batch_id, response)
        return batch_states.status_refusal(self._provider, response) if vanished is None else vanished

    def status(self, key: str | None, provider_batch_id: str) -> HttpRequest:
        """Return a status check."""
        return self._get(key, f"/batches/{quote(provider_batch_id, safe='')}")

    def listing(self, key: str | None, since_s: float) -> HttpRequest:  # noqa: ARG002 - there is no filter by time
        """Return the request for the first page of batches, newest first."""
        return self._get(key, "/batches", limit=str(batch_states.PAGE_SIZE))

    def read_page(self, key: str | None, response: HttpResponse) -> BatchPage | CallError:
        """Read a page of a listing."""

        def following(last_id: str) -> HttpRequest:
            return self._get(key, "/batches", limit=str(batch_states.PAGE_SIZE), after=last_id)

        return batch_states.read_page(self._provider, response, _state, following)

    def is_ours(self, state: BatchState, facts: CreateFacts, since_s: float) -> bool | None:  # noqa: ARG002 - certain
        """Say by its metadata whether a batch is the one that `facts` created; always certain."""
        wanted = _metadata(facts)
        return {name: state.metadata.get(name) for name in wanted} == wanted

    def cancel(self, key: str | None, provider_batch_id: str) -> HttpRequest | None:
        """Return the cancel request; what is done by then is kept and charged."""
        url = self.url(f"/batches/{quote(provider_batch_id, safe='')}/cancel")
        return HttpRequest("POST", url, self._headers(key), b"")

    def results(self, key: str | None, state: BatchState) -> Sequence[FilePart]:
        """Return the output file and the error file, those that there are."""
        files = (("output", state.output_file_id), ("error", state.error_file_id))
        return tuple(FilePart(kind, self._content(key, file_id), file_id) for kind, file_id in files if file_id)

    def read_line(self, line: bytes) -> BatchLine:
        """Read one line of an output or error file."""
        return read_openai_line(line, self._provider)

    def url(self, path: str, **query: str) -> str:
        """Return the address of a path with its query."""
        return f"{self._provider.base_url}{path}{'?' if query else ''}{urlencode(query)}"

    def refused(self, response: HttpResponse) -> CallError:
        """Return the error of a reply that holds neither a batch nor a file."""
        return batch_states.refusal(self._provider, response)

    def _get(self, key: str | None, path: str, **query: str) -> HttpRequest:
        return HttpRequest("GET", self.url(path, **query), self._headers(key), b"")

    def _content(self, key: str | None, file_id: str) -> HttpRequest:
        headers = self._headers(key) | {"accept": "application/binary"}
        return HttpRequest("GET", self.url(f"/files/{quote(file_id, safe='')}/content"), headers, b"")

    def _headers(self, key: str | None) -> dict[str, str]:
        """Return the headers of a request without a JSON body."""
        headers = self._provider.all_headers(key)
        headers.pop("content-type", None)
        return headers


def _metadata(facts: CreateFacts) -> dict[str, str]:
    return {_BATCH: facts.batch_key, _ATTEMPT: str(facts.attempt), _RUN: facts.run_id}


def _state(data: Any) -> BatchState | None:
    body = mapping(data)
    return batch_states.openai_state(body, batch_states.problems(body.get("errors")))
