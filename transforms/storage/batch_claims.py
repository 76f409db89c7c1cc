"""Which of the provider's batches our ledger has claimed, and taking back a claim that was wrong.

A batch adopted by time and count alone may turn out to be somebody else's. It is then disowned: its id is kept, so
that it is never adopted again, and the attempt is in doubt once more.
"""

from hashlib import sha256
from pathlib import Path

import orjson

from transforms.storage.objects import create_if_absent, sync_folder


def claimed_ids(ledger: str) -> set[str]:
    """Return the provider's ids of all batches that are recorded as ours, or as not ours."""
    folder = Path(ledger) / "batches"
    paths = [*folder.glob("*/handle-*.json"), *folder.glob("*/foreign-*.json")]
    return {orjson.loads(path.read_bytes())["provider_batch_id"] for path in paths}


def disown(ledger: str, key: str, attempt: int, provider_batch_id: str) -> None:
    """Record that a batch of the provider is not the one an attempt created, and forget its handle. May be repeated."""
    folder = Path(ledger) / "batches" / key
    name = f"foreign-{sha256(provider_batch_id.encode()).hexdigest()[:16]}.json"
    create_if_absent(str(folder / name), orjson.dumps({"provider_batch_id": provider_batch_id, "attempt": attempt}))
    for kind in ("cancel", "ended", "handle"):
        (folder / f"{kind}-{attempt}.json").unlink(missing_ok=True)
    sync_folder(str(folder))
