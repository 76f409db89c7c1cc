"""Which of the provider's batches our ledger has claimed, and taking back a claim that was wrong.

A batch adopted by time and count alone may turn out to be somebody else's, or that of another create of ours whose
reply was lost as well. It is then disowned: its id is kept, so that the same attempt never adopts it again, and the
attempt is in doubt once more; who really created it may still adopt it.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson

from transforms.storage.objects import create_if_absent, sync_folder


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
    folder = Path(ledger) / "batches"
    taken = {_provider_batch_id(path) for path in folder.glob(f"{key}/foreign-*.json")}
    undecided: set[str] = set()
    for path in folder.glob("*/handle-*.json"):
        try:
            handle = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            continue  # disowned at this moment
        is_decided = handle["proven"] or path.parent.name == key or _is_decided(path)
        (taken if is_decided else undecided).add(handle["provider_batch_id"])
    return Claims(frozenset(taken), frozenset(undecided - taken))


def _is_decided(handle: Path) -> bool:
    """Tell whether an adopted batch has ended: its results were looked at before that was recorded."""
    return any(handle.with_name(handle.name.replace("handle", kind)).exists() for kind in ("ended", "void"))


def _provider_batch_id(path: Path) -> str:
    found: str = orjson.loads(path.read_bytes())["provider_batch_id"]
    return found


def disown(ledger: str, key: str, attempt: int, provider_batch_id: str) -> None:
    """Record that a batch of the provider is not the one an attempt created, and forget its handle. May be repeated."""
    folder = Path(ledger) / "batches" / key
    name = f"foreign-{sha256(provider_batch_id.encode()).hexdigest()[:16]}.json"
    create_if_absent(str(folder / name), orjson.dumps({"provider_batch_id": provider_batch_id, "attempt": attempt}))
    for kind in ("cancel", "ended", "handle"):
        (folder / f"{kind}-{attempt}.json").unlink(missing_ok=True)
    sync_folder(str(folder))
