"""Requests become batches at rest: request file, members file and this run's asked file, then staged.json.

Lines are streamed to hidden files; of a batch only its ids are held in memory. A batch exists from the moment its
staged.json does, which is written last, so a kill leaves whole batches and hidden files that `sweep_unsent` removes.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from transforms.records.batch import BatchLimits, BatchRef
from transforms.records.errors import InternalError
from transforms.records.request import Lane
from transforms.rules.fingerprint import batch_id, tagged_sha256
from transforms.storage.asked_file import AskedWriter, asked_path
from transforms.storage.batch_entry import Phase, Staged
from transforms.storage.batch_ledger import give_up, members_path, read_entry, requests_path, write_staged
from transforms.storage.batch_members import MemberLine, member_line
from transforms.storage.draft_file import DraftFile
from transforms.storage.objects import parent, publish, temporary_path

_NONCE_LENGTH = 8
_AGAIN_TAG = "batch_again"


@dataclass(frozen=True, slots=True)
class BatchMember:
    """What the ledger notes of one request of a batch; fields as in MemberLine. token_estimate: of its prompt."""

    custom_id: str
    request_id: str
    root_request_id: str
    lane: Lane
    prompt_sha256: str
    template_sha256: str
    variables_sha256: str
    lookup_sha256: str | None
    token_estimate: int


@dataclass(frozen=True, slots=True)
class BatchOrigin:
    """What the batches of one stager have in common, as staged.json says it."""

    run_id: str
    request_model: str
    provider_name: str
    mode: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """A batch at rest. asked_path: this run's requests of it."""

    staged: Staged
    asked_path: str

    def ref(self) -> BatchRef:
        """Return what travels on."""
        return self.staged.ref(self.asked_path, is_adopted=False)


class BatchStager:
    """Packs requests, in the order they come, into as few batches as the limits allow.

    Not thread-safe. After an exception nothing more can be added; `discard` removes what is unfinished.
    """

    def __init__(
        self,
        ledger: str,
        asked_folder: str,
        limits: BatchLimits,
        name: Callable[[list[str]], str],
        origin: BatchOrigin,
        clock: Callable[[], float] = time.time,
        *,
        may_hold: Callable[[int, int], bool] | None = None,
    ) -> None:
        """Remember where to stage.

        Args:
            ledger: the ledger's folder; the lease must be held.
            asked_folder: of the run's asked files.
            limits: of one batch. max_bytes counts the lines and one byte between each two of them, a newline or a
                comma; what an inline create puts around them is in the headroom (5 % of any provider's limit).
            name: returns the batch key of request ids, whatever their order.
            origin: what staged.json says of all batches.
            clock: Unix seconds.
            may_hold: whether one batch may hold so many bytes and requests; asked from the second request on.
        """
        self._ledger = ledger
        self._asked_folder = asked_folder
        self._limits = limits
        self._name = name
        self._origin = origin
        self._clock = clock
        self._may_hold = may_hold
        self._draft: _Draft | None = None

    def fits(self, line: bytes) -> bool:
        """Say whether a batch can hold this line at all."""
        return len(line) <= self._limits.max_bytes

    def add(self, member: BatchMember, line: bytes, packed: bytes) -> StagedFiles | None:
        """Put a request into the current batch; return the batch before it, if it had no room left.

        Args:
            member: the request.
            line: its line of the request file, without a newline; `fits` must be true of it.
            packed: the ModelRequest with the rows that wait for it.

        Raises:
            InternalError: the line is too long, empty or two lines, or one of the ids is in the batch already.
            OSError: the disk is full and the like.
        """
        if not line or b"\n" in line or not self.fits(line):
            raise InternalError(
                f"request {member.request_id} can't be a line of a batch; report this, nothing was sent"
            )
        finished = None
        if self._draft is not None and not self._has_room(self._draft, len(line)):
            finished = self.finish()
        if self._draft is None:
            self._draft = _Draft(parent(requests_path(self._ledger, "")), self._asked_folder)
        self._draft.add(member, line, packed)
        return finished

    def finish(self) -> StagedFiles | None:
        """Complete the current batch and return it; None when nothing was added since the last one.

        Raises:
            InternalError: a batch of the same requests is in flight.
            OSError: the disk is full and the like.
        """
        draft, self._draft = self._draft, None
        if draft is None:
            return None
        try:
            return self._stage(draft)
        except BaseException:
            draft.discard()
            raise

    def discard(self) -> None:
        """Drop the current batch; finished ones stay."""
        if self._draft is not None:
            self._draft.discard()
            self._draft = None

    def _has_room(self, draft: "_Draft", line_length: int) -> bool:
        byte_count, requests = draft.requests.size + 1 + line_length, len(draft.request_ids) + 1
        if byte_count > self._limits.max_bytes or requests > self._limits.max_requests:
            return False
        return self._may_hold is None or self._may_hold(byte_count, requests)

    def _stage(self, draft: "_Draft") -> StagedFiles:
        key = self._free_key(self._name(list(draft.request_ids)))
        origin = self._origin
        staged = Staged(
            batch_key=key,
            batch_id=batch_id(origin.run_id, key),
            run_id=origin.run_id,
            nonce=draft.nonce,
            request_model=origin.request_model,
            provider_name=origin.provider_name,
            mode=origin.mode,
            request_count=len(draft.request_ids),
            byte_count=draft.requests.size,
            token_estimate=draft.token_estimate,
            staged_at_s=self._clock(),
            address=origin.address,
        )
        files = StagedFiles(staged, asked_path(self._asked_folder, key))
        draft.publish(requests_path(self._ledger, key), members_path(self._ledger, key), files.asked_path)
        write_staged(self._ledger, staged)
        return files

    def _free_key(self, first: str) -> str:
        """Return the first key for these requests that no batch of the past holds.

        A batch of exactly these requests may have been closed before, with all of them failed or expired; its files
        and its intents stay, so this one needs a key of its own.
        """
        for key in _keys(first):
            entry = read_entry(self._ledger, key)
            if entry is None:
                return key
            if entry.is_in_flight:
                raise InternalError(
                    f"batch {key} is in flight ({entry.phase}) and its requests were about to be sent again; report "
                    f"this, nothing was sent twice; running the same job again collects it"
                )
            if entry.phase is Phase.STAGED and give_up(self._ledger, entry, self._origin.run_id, self._clock()):
                return key
        raise AssertionError("there is always another key")


def _keys(first: str) -> Iterator[str]:
    yield first
    for number in count(1):
        yield tagged_sha256(_AGAIN_TAG, [first, number])


class _Draft:
    """The batch that is being filled, in hidden files."""

    def __init__(self, requests_folder: str, asked_folder: str) -> None:
        self.requests = DraftFile(requests_folder)
        self._members = DraftFile(requests_folder)
        self._asked_temporary = temporary_path(asked_path(asked_folder, "draft"))
        self._asked = AskedWriter(self._asked_temporary)
        # In the order they came.
        self.request_ids: dict[str, None] = {}
        self._custom_ids: set[str] = set()
        self.token_estimate = 0
        self.nonce = ""

    def add(self, member: BatchMember, line: bytes, packed: bytes) -> None:
        self._check_new(member)
        if self.request_ids:
            self.requests.write(b"\n")
        else:
            self.nonce = member.custom_id[:_NONCE_LENGTH]
        placed = MemberLine(
            member.custom_id,
            member.request_id,
            member.root_request_id,
            member.lane,
            member.prompt_sha256,
            member.template_sha256,
            member.variables_sha256,
            member.lookup_sha256,
            self.requests.size,
            len(line),
        )
        self.request_ids[member.request_id] = None
        self._custom_ids.add(member.custom_id)
        self.requests.write(line)
        self._members.write(member_line(placed))
        self._asked.add(member.request_id, packed)
        self.token_estimate += member.token_estimate

    def publish(self, requests: str, members: str, asked: str) -> None:
        self._asked.close()
        publish(self._asked_temporary, asked)
        self.requests.publish(requests)
        self._members.publish(members)

    def discard(self) -> None:
        self.requests.discard()
        self._members.discard()
        self._asked.discard()
        Path(self._asked_temporary).unlink(missing_ok=True)

    def _check_new(self, member: BatchMember) -> None:
        if member.request_id in self.request_ids or member.custom_id in self._custom_ids:
            raise InternalError(
                f"request {member.request_id} (custom id {member.custom_id}) comes twice in one batch; report this, "
                f"nothing was sent"
            )
