"""The seam between the batch stages and a provider's batch API: how files and batches become HTTP.

Pure like `base.Provider`: builds requests, reads responses, never connects. A provider without a batch API has no
`BatchApi`; `make_batch_api` in `transforms/providers/__init__.py` then returns None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transforms.records.batch import BatchLimits, BatchLine, BatchState
from transforms.records.reply import CallError, HttpRequest, HttpResponse


@dataclass(frozen=True, slots=True)
class FileUpload:
    """A multipart POST of the request file. fields: form fields before the file part, in order.

    headers hold no content-type: the boundary is the client's.
    """

    url: str
    headers: dict[str, str]
    fields: tuple[tuple[str, str], ...]
    file_name: str
    file_type: str


@dataclass(frozen=True, slots=True)
class InlineCreate:
    """A POST whose body is `head`, the lines of the request file joined by commas, and `tail`: streamed, never whole."""

    url: str
    headers: dict[str, str]
    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class CreateFacts:
    """What a create says of itself, so that it can be found again.

    Attributes:
        batch_key: the batch; attempt: 0 for its first create.
        run_id: the run that creates it; nonce: the first 8 characters of its custom ids.
        request_count: requests in it.
    """

    batch_key: str
    attempt: int
    run_id: str
    nonce: str
    request_count: int


@dataclass(frozen=True, slots=True)
class FilePart:
    """One thing to download for results. kind: output, error, or results (both in one)."""

    kind: str
    request: HttpRequest
    file_id: str | None


@dataclass(frozen=True, slots=True)
class BatchPage:
    """One page of a batch listing, newest first. next_request: the page after it, or None at the end."""

    states: tuple[BatchState, ...]
    next_request: HttpRequest | None


class BatchApi(Protocol):
    """What the batch stages need of a provider's batch API. Built from the same settings as its Provider.

    Attributes:
        limits: of one batch, 5 % headroom taken off.
        request_model: the model (on Azure the batch deployment) that lines name.
        uses_files: requests are uploaded as a file before the create; else they go inline in the create.
        waits_for_file: the file must be processed before the create (Azure).
        can_cancel: the provider can cancel a batch.
        has_metadata: creates carry metadata that listings give back, which proves whose a batch is.
        shows_progress: counts move while the batch runs.
        expires: the provider ends a batch by itself after its window.
        min_poll_s: the provider asks to poll no oftener, seconds.
        body_path: the keys that lead from a line of results to the body of its response, where it has one.
    """

    limits: BatchLimits
    request_model: str
    uses_files: bool
    waits_for_file: bool
    can_cancel: bool
    has_metadata: bool
    shows_progress: bool
    expires: bool
    min_poll_s: float
    body_path: tuple[str, ...]

    def line(self, custom_id: str, body: dict[str, Any]) -> bytes:
        """Return the line of the request file for one request, without its newline.

        Args:
            custom_id: what the provider sees.
            body: as `Provider.body` gives it; on Azure the model is replaced by the batch deployment.
        """
        ...

    def upload(self, key: str | None, facts: CreateFacts) -> FileUpload:
        """Return the upload of the request file. Only where uses_files."""
        ...

    def read_file(self, response: HttpResponse) -> tuple[str, str] | CallError:
        """Return (file id, state) of an uploaded file; state is processed, pending or error (see waits_for_file)."""
        ...

    def file_status(self, key: str | None, file_id: str) -> HttpRequest:
        """Return the request for a file's state."""
        ...

    def create(self, key: str | None, facts: CreateFacts, input_file_id: str | None) -> HttpRequest | InlineCreate:
        """Return the one request that creates the batch and is never repeated blindly."""
        ...

    def read_batch(self, response: HttpResponse) -> BatchState | CallError:
        """Read the reply to a create, a status check or a cancel. Never raises.

        A status check's 404 or 410, or a batch whose results are deleted, is a BatchState with GONE only through
        `read_status`; here it is a CallError.
        """
        ...

    def read_status(self, provider_batch_id: str, response: HttpResponse) -> BatchState | CallError:
        """Read the reply to a status check: as read_batch, but 404 and 410 are GONE and a 402 with a batch is withheld."""
        ...

    def status(self, key: str | None, provider_batch_id: str) -> HttpRequest:
        """Return a status check."""
        ...

    def listing(self, key: str | None, since_s: float) -> HttpRequest:
        """Return the request for the first page of batches, newest first; since_s: Unix seconds, used where a filter exists."""
        ...

    def read_page(self, key: str | None, response: HttpResponse) -> BatchPage | CallError:
        """Read a page of a listing."""
        ...

    def is_ours(self, state: BatchState, facts: CreateFacts, since_s: float) -> bool | None:
        """Say whether a listed batch is the one that `facts` created: True or False where it is certain.

        None: it may be (time and counts fit); only the custom ids in its results can tell (`facts.nonce`).
        """
        ...

    def cancel(self, key: str | None, provider_batch_id: str) -> HttpRequest | None:
        """Return the cancel request, or None where there is no cancel."""
        ...

    def results(self, key: str | None, state: BatchState) -> Sequence[FilePart]:
        """Return what to download for a terminal batch, in order; () when there is nothing.

        A results URL on another host than the API's is refused with ConfigError: the key must not go there.
        """
        ...

    def read_line(self, line: bytes) -> BatchLine:
        """Read one line of a results file. Never raises."""
        ...
