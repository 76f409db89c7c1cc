"""What batch APIs without files have in common: requests go inside the create (providers.md 4.4, 5.3)."""

from typing import NoReturn

from transforms.providers.batch_base import CreateFacts, FileUpload
from transforms.records.errors import InternalError
from transforms.records.reply import CallError, HttpRequest, HttpResponse


class InlineTransport:
    """The part of `BatchApi` that says so: no files, and no metadata either."""

    uses_files = False
    waits_for_file = False
    has_metadata = False
    expires = True
    min_poll_s = 0.0

    def upload(self, key: str | None, facts: CreateFacts) -> FileUpload:  # noqa: ARG002 - there is nothing to upload
        """Raise InternalError: nothing is uploaded."""
        _no_files()

    def read_file(self, response: HttpResponse) -> tuple[str, str] | CallError:  # noqa: ARG002 - likewise
        """Raise InternalError: nothing is uploaded."""
        _no_files()

    def file_status(self, key: str | None, file_id: str) -> HttpRequest:  # noqa: ARG002 - likewise
        """Raise InternalError: nothing is uploaded."""
        _no_files()


def _no_files() -> NoReturn:
    raise InternalError("this provider's batches are created without a file; look at uses_files first")
