"""Requests of a batch that the run that collects it does not ask: rows that left the input, or a prompt that changed."""

from transforms.records.errors import InternalError
from transforms.records.request import Lane, ModelRequest, Prompt, PromptHashes
from transforms.storage.batch_ledger import MemberLine, RequestLines, read_members, requests_path


class Orphans:
    """Requests of a batch that this run does not ask: their results are recorded all the same."""

    def __init__(self, ledger: str, key: str) -> None:
        self._ledger, self._key = ledger, key
        self._members: dict[str, MemberLine] | None = None
        self._lines: RequestLines | None = None

    def request(self, custom_id: str) -> ModelRequest:
        """Return what the record of a call needs to know of its request."""
        member = self._member(custom_id)
        hashes = PromptHashes(
            member.prompt_sha256, member.template_sha256, member.variables_sha256, member.lookup_sha256
        )
        return ModelRequest(
            member.request_id, Prompt(None, ()), None, hashes, Lane(member.lane), member.root_request_id
        )

    def body(self, custom_id: str) -> bytes:
        """Return the request's line as it was sent.

        Raises:
            InternalError: the request file is missing or too short.
        """
        member = self._member(custom_id)
        if self._lines is None:
            try:
                self._lines = RequestLines(self._ledger, self._key)
            except FileNotFoundError as error:
                raise InternalError(
                    f"{requests_path(self._ledger, self._key)} is missing, and the input lacks rows that were asked "
                    f"in it; restore the file from a backup, or run the job with those rows again"
                ) from error
        return self._lines.line(member.offset, member.length)

    def _member(self, custom_id: str) -> MemberLine:
        if self._members is None:
            self._members = {member.custom_id: member for member in read_members(self._ledger, self._key)}
        return self._members[custom_id]
