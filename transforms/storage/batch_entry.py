"""What the ledger knows of one provider batch: a record for each of its files, and the phase they add up to.

    staged ──intent──> in_doubt ──handle──> submitted ──ended──> ended ──collected──> collected
       ^                   │                    │                  │
       └──── void ─────────┴────────────────────┴──────────────────┘      another attempt may follow

Times are Unix seconds. Unknown keys of a file are ignored, so that newer versions can add fields.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from transforms.records.batch import BatchRef, BatchStatus

_Record = TypeVar("_Record")


class Phase(StrEnum):
    """Where a batch is.

    STAGED: its files are there, and no create is under way or has left a batch at the provider. IN_DOUBT: a create was
    begun, and nobody has recorded what became of it. SUBMITTED: the provider has it. ENDED: the provider is done with
    it. COLLECTED: closed; its results are in the answers ledger, or it was given up before anything was sent.
    """

    STAGED = "staged"
    IN_DOUBT = "in_doubt"
    SUBMITTED = "submitted"
    ENDED = "ended"
    COLLECTED = "collected"


#: Phases in which the batch's requests are never sent by another path (P2).
IN_FLIGHT = frozenset({Phase.IN_DOUBT, Phase.SUBMITTED, Phase.ENDED})

#: `Collected.status`: every result is recorded; or given up before anything was sent, the requests are fresh again.
COLLECTED = "collected"
ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Staged:
    """staged.json: the batch exists, with its request and members files.

    Attributes:
        batch_key, batch_id, run_id: names of the batch, of its execution record, of the run that staged it.
        nonce: the first 8 characters of its custom ids.
        mode: the mode its execution record shows.
        byte_count: of the request file; token_estimate: prompt tokens of all requests.
        address: where the provider's API is; what one address has in flight, no other knows.
    """

    batch_key: str
    batch_id: str
    run_id: str
    nonce: str
    request_model: str
    provider_name: str
    mode: str
    request_count: int
    byte_count: int
    token_estimate: int
    staged_at_s: float
    address: str = ""

    def ref(self, asked_path: str, *, is_adopted: bool) -> BatchRef:
        """Return what travels between the batch stages of the run whose own requests are in `asked_path`."""
        return BatchRef(
            batch_key=self.batch_key,
            batch_id=self.batch_id,
            staged_run_id=self.run_id,
            asked_path=asked_path,
            request_count=self.request_count,
            byte_count=self.byte_count,
            token_estimate=self.token_estimate,
            is_adopted=is_adopted,
        )


@dataclass(frozen=True, slots=True)
class Upload:
    """uploaded-<n>.json: the request file is at the provider, for attempt n."""

    file_id: str


@dataclass(frozen=True, slots=True)
class Intent:
    """intents/<batch_key>.json: whoever created it, and nobody else, sends the create of this attempt."""

    batch_key: str
    attempt: int
    run_id: str
    nonce: str
    request_count: int
    intended_at_s: float


@dataclass(frozen=True, slots=True)
class Handle:
    """handle-<n>.json: the create of attempt n is known to exist.

    proven: False where time and count led to it; the custom ids of its results then decide.
    """

    provider_batch_id: str
    input_file_id: str | None
    submitted_at_s: float
    run_id: str
    proven: bool


#: The kind of a Void that an operator recorded for a batch that was, or may have been, created and billed.
LOST = "lost"


@dataclass(frozen=True, slots=True)
class Void:
    """void-<n>.json: attempt n came to nothing; kind is a word, reason a sentence."""

    reason: str
    kind: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """cancel-<n>.json: cancelling attempt n was asked for, and why."""

    why: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """ended-<n>.json: the terminal state of attempt n, as BatchState gives it."""

    status: BatchStatus
    raw_status: str
    total: int | None
    completed: int | None
    failed: int | None
    output_file_id: str | None
    error_file_id: str | None
    results_url: str | None
    ended_at_s: float
    has_inline_results: bool = False


@dataclass(frozen=True, slots=True)
class Collected:
    """collected.json: the batch is closed by a run; its requests by what became of them. status: see ABANDONED."""

    run_id: str
    at_s: float
    succeeded: int
    failed: int
    missing: int
    status: str = COLLECTED


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """All of it, folded.

    Attributes:
        attempt: the attempt whose create is next (phase STAGED) or was begun.
        intent, handle, cancel, ended: of that attempt; None where there is no such file.
        uploads: file ids by attempt; an earlier attempt's file may still be good.
        voids: why earlier attempts came to nothing, in their order.
    """

    staged: Staged
    attempt: int
    intent: Intent | None
    handle: Handle | None
    ended: Ended | None
    cancel: Cancel | None
    collected: Collected | None
    uploads: dict[int, str]
    voids: tuple[Void, ...]

    @property
    def key(self) -> str:
        """The batch's key."""
        return self.staged.batch_key

    @property
    def file_id(self) -> str | None:
        """The uploaded request file of this attempt."""
        return self.uploads.get(self.attempt)

    @property
    def phase(self) -> Phase:
        """Where the batch is."""
        if self.collected is not None:
            return Phase.COLLECTED
        if self.ended is not None:
            return Phase.ENDED
        if self.handle is not None:
            return Phase.SUBMITTED
        return Phase.STAGED if self.intent is None else Phase.IN_DOUBT

    @property
    def is_in_flight(self) -> bool:
        """Whether its requests may not be sent by another path."""
        return self.phase in IN_FLIGHT

    @property
    def is_untouched(self) -> bool:
        """Whether nothing of it ever reached for the provider: no upload, no create, not even one that failed."""
        return self.phase is Phase.STAGED and not self.uploads and not self.voids


def encode_record(record: Any) -> bytes:
    """Return a record as the content of its file."""
    return orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def decode_record(record_class: type[_Record], data: bytes) -> _Record:
    """Return the record that a file holds.

    Raises:
        ValueError: the content is no such record; says why in one line.
    """
    try:
        # mypy doubts that a class of any kind can be hashed.
        record: _Record = _adapter(record_class).validate_json(data, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    return record


@cache
def _adapter(record_class: type) -> TypeAdapter[Any]:
    return TypeAdapter(record_class)
