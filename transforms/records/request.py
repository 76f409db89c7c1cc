"""What is asked of a model, before any provider's wire format.

Records that cross a shuffle pickle as one flat tuple: a frozen, slotted dataclass pickled as it is costs ten times
as much (25 against 2 microseconds for a ModelRequest, each way).
"""

import pickle
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from transforms.records.quick import quick
from transforms.records.row import AskedRow, asked_from
from transforms.records.usage import Usage

#: Rows that may travel with one request; it bounds the size of an element that many equal rows share.
MAX_RIDERS = 16


# How a pickled tuple begins: protocol, frame and mark, and then its first text, where that is short.
_FIRST, _SHORT_TEXT, _SHORT = 12, 0x8C, 255


class Lane(StrEnum):
    """Why a request exists: the row's first question, or the one repair re-ask."""

    MAIN = "main"
    REPAIR = "repair"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation.

    Attributes:
        system: the system part, or None.
        turns: (role, text) pairs, role is "user" or "assistant"; the last one is "user".
    """

    system: str | None
    turns: tuple[tuple[str, str], ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat."""
        return Prompt, (self.system, self.turns)


@quick
@dataclass(frozen=True, slots=True)
class PromptHashes:
    """Hex sha256 digests that say what a prompt was made of; lookup is None without lookup files."""

    prompt: str
    template: str
    variables: str
    lookup: str | None


@dataclass(frozen=True, slots=True)
class PriorAttempt:
    """What an invalid answer had cost before its repair was asked for.

    Attributes:
        call_id: the call whose answer was invalid.
        attempts: calls made until then.
        usage, cost_usd: of that answer; cost None when unknown.
        error: why the answer was invalid, the sentence the model is shown.
    """

    call_id: str | None
    attempts: int
    usage: Usage
    cost_usd: Decimal | None
    error: str


@quick
@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One distinct question; rows that ask the same thing share it.

    Attributes:
        request_id: hash of everything that can change the answer (rules/fingerprint.py).
        prompt: what is sent.
        shown_prompt: what audit may show: the prompt with redacted fields, or None when nothing is redacted.
        hashes: what the prompt was made of.
        lane: MAIN, or REPAIR for the one re-ask of an invalid answer.
        root_request_id: the MAIN request this one serves (its own request_id in the MAIN lane).
        redacted_values: texts of the redacted columns, which audit blanks out of responses too.
        prior: in the REPAIR lane, the invalid answer that led here.
        riders: rows that wait for the answer and travel with the request, so that no join is needed for them.
        crowded: more rows wait than may travel along (MAX_RIDERS); they are joined with the answer afterwards.
    """

    request_id: str
    prompt: Prompt
    shown_prompt: Prompt | None
    hashes: PromptHashes
    lane: Lane
    root_request_id: str
    redacted_values: tuple[str, ...] = ()
    prior: PriorAttempt | None = None
    riders: tuple[AskedRow, ...] = ()
    crowded: bool = False

    def flat(self) -> tuple[Any, ...]:
        """Return the record as one tuple of plain values, for `request_from`."""
        prompt, hashes = self.prompt, self.hashes
        return (
            self.request_id,
            prompt.system,
            prompt.turns,
            self.shown_prompt,
            hashes.prompt,
            hashes.template,
            hashes.variables,
            hashes.lookup,
            self.lane is Lane.REPAIR,
            self.root_request_id,
            self.redacted_values,
            self.prior,
            tuple([asked.flat() for asked in self.riders]),
            self.crowded,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat."""
        return request_from, self.flat()


def request_from(*flat: Any) -> ModelRequest:
    """Build the record of `ModelRequest.flat`."""
    request_id, system, turns, shown, prompt, template, variables, lookup, is_repair, root, *rest = flat
    redacted, prior, riders, crowded = rest
    return ModelRequest(
        request_id,
        Prompt(system, turns),
        shown,
        PromptHashes(prompt, template, variables, lookup),
        Lane.REPAIR if is_repair else Lane.MAIN,
        root,
        redacted,
        prior,
        tuple([asked_from(*asked) for asked in riders]),
        crowded,
    )


@dataclass(frozen=True, slots=True)
class RequestGroup:
    """The requests of one GroupIntoBatches output; the unit that has one execution record.

    Attributes:
        batch_key: hash of the requests' ids, provider and model (rules/fingerprint.py).
        packed: the requests, each pickled once: grouping and shuffling then handle bytes.
    """

    batch_key: str
    packed: tuple[bytes, ...]

    def requests(self) -> list[ModelRequest]:
        """Return the requests, in the order of their ids."""
        return [unpack(packed) for packed in self.packed]


def pack(request: ModelRequest) -> bytes:
    """Return the request as bytes: what it crosses shuffles as, packed where it is made, unpacked where it is called."""
    return pickle.dumps(request.flat(), pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes) -> ModelRequest:
    """Return the request of `pack`."""
    return request_from(*unpack_flat(packed))


def is_packed_of(packed: bytes, request_id: str) -> bool:
    """Whether `packed` is of this request, told by its first bytes; False also where they don't tell."""
    text = request_id.encode()
    return len(text) <= _SHORT and packed.startswith(b"%c%c%b" % (_SHORT_TEXT, len(text), text), _FIRST)


def unpack_flat(packed: bytes) -> tuple[Any, ...]:
    """Return `ModelRequest.flat` of the request of `pack`, in a third of its time."""
    flat: tuple[Any, ...] = pickle.loads(packed)  # noqa: S301 - packed in this pipeline
    return flat
