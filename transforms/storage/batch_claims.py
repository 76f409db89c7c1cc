"""Which of the provider's batches our ledger has claimed, and taking back a claim that was wrong.

A batch adopted by time and count alone may turn out to be somebody else's, or that of another create of ours whose
reply was lost as well. It is then disowned: its id is kept, so that the same attempt never adopts it again, and the
attempt is in doubt once more; who really created it may still adopt it.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePath

import orjson

from transforms.storage.batch_fold import batch_folder, batches_folder
from transforms.storage.objects import (
    create_if_absent,
    exists,
    join,
    list_files,
    list_level,
    parent,
    read_bytes,
    remove,
    sync_folder,
)

_FOREIGN = "foreign-"


@dataclass(frozen=True, slots=True)
class Claims:
    """The provider's ids of batches, as one batch of ours in doubt must see them.

    Attributes:
        taken: certainly not the one looked for: known to be another of ours, or disowned by this one.
        open: adopted by another of ours, by time and count alone. Whose they are shows when they have ended; until
            then nothing proves that the one looked for does not exist.
    """

    taken: frozenset[str]
    open: frozenset[str]


def claims(ledger: str, key: str) -> Claims:
    """Return which of the provider's batches are claimed, as the batch `key` must see it."""
    folder = batches_folder(ledger)
    own = list_files(join(folder, key), ".json")
    taken = {_provider_batch_id(path) for path in own if PurePath(path).name.startswith(_FOREIGN)}
    undecided: set[str] = set()
    for path in list_level(folder, ".json"):
        if not PurePath(path).name.startswith("handle-"):
            continue
        try:
            handle = orjson.loads(read_bytes(path))
        except FileNotFoundError:
            continue  # disowned at this moment
        is_decided = handle["proven"] or PurePath(path).parent.name == key or _is_decided(path)
        (taken if is_decided else undecided).add(handle["provider_batch_id"])
    return Claims(frozenset(taken), frozenset(undecided - taken))


def _is_decided(handle: str) -> bool:
    """Tell whether an adopted batch has ended: its results were looked at before that was recorded."""
    name = PurePath(handle).name
    return any(exists(join(parent(handle), name.replace("handle", kind))) for kind in ("ended", "void"))


def _provider_batch_id(path: str) -> str:
    found: str = orjson.loads(read_bytes(path))["provider_batch_id"]
    return found


def disown(ledger: str, key: str, attempt: int, provider_batch_id: str) -> None:
    """Record that a batch of the provider is not the one an attempt created, and forget its handle. May be repeated."""
    folder = batch_folder(ledger, key)
    name = f"{_FOREIGN}{sha256(provider_batch_id.encode()).hexdigest()[:16]}.json"
    create_if_absent(join(folder, name), orjson.dumps({"provider_batch_id": provider_batch_id, "attempt": attempt}))
    for kind in ("cancel", "ended", "handle"):
        remove(join(folder, f"{kind}-{attempt}.json"))
    sync_folder(folder)
