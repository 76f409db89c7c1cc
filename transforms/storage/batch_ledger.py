"""The ledger of provider batches: what is known of them (`batch_fold.py` reads it), and all that is written of them.

Every file is created once, durably, before the next step is taken, and never changed; the writers may be repeated.
Here only `give_up` and `sweep_unsent` remove anything, and only of batches that never reached for the provider; the
request files of closed ones are for `batch_sweep.sweep_prompts`, and `batch_claims.disown` takes a wrong handle back.
"""

from pathlib import PurePath

from transforms.records.errors import InternalError
from transforms.rules.place import Place, is_same_place
from transforms.storage.batch_entry import (
    ABANDONED,
    BatchEntry,
    Cancel,
    Collected,
    Ended,
    Handle,
    Intent,
    Phase,
    Staged,
    Upload,
    Void,
    encode_record,
)
from transforms.storage.batch_fold import (
    COLLECTED_NAME,
    STAGED_NAME,
    batch_folder,
    batch_keys,
    batch_path,
    batches_folder,
    entries,
    file_names,
    fold,
    intent_path,
    intents_folder,
    key_of_intent,
    read_entry,
    read_record,
)
from transforms.storage.batch_members import (
    MemberLine,
    RequestLines,
    members_path,
    read_members,
    request_line,
    requests_path,
)
from transforms.storage.objects import create_if_absent, join, list_all, list_files, remove, remove_tree, sync_folder

__all__ = [
    "BatchEntry",
    "MemberLine",
    "RequestLines",
    "create_intent",
    "creates_since",
    "give_up",
    "list_entries",
    "members_path",
    "open_entries",
    "read_entry",
    "read_members",
    "record_cancel",
    "record_collected",
    "record_ended",
    "record_handle",
    "record_upload",
    "record_void",
    "request_line",
    "requests_path",
    "sweep_unsent",
    "tokens_in_flight",
    "write_staged",
]

#: When each intent was made, by path: they never change, and a nightly job's are many.
_intended: dict[str, float] = {}


def open_entries(ledger: str) -> list[BatchEntry]:
    """Return the batches in flight, the oldest first.

    Raises:
        InternalError: as `read_entry`.
    """
    return [entry for entry in entries(ledger, with_closed=False) if entry.is_in_flight]


def list_entries(ledger: str) -> list[BatchEntry]:
    """Return all batches, closed ones too, the oldest first.

    Raises:
        InternalError: as `read_entry`.
    """
    return entries(ledger, with_closed=True)


def write_staged(ledger: str, staged: Staged) -> None:
    """Say that a batch exists; its request and members files must be durable already.

    Raises:
        InternalError: it is staged already; `give_up` the one that was never sent first.
    """
    if not _record(ledger, staged.batch_key, STAGED_NAME, staged):
        raise InternalError(f"batch {staged.batch_key} is staged twice at a time; run the same job again")


def record_upload(ledger: str, key: str, attempt: int, file_id: str) -> bool:
    """Say that the request file of an attempt is at the provider; False when another upload was recorded before."""
    return _record(ledger, key, f"uploaded-{attempt}.json", Upload(file_id))


def create_intent(ledger: str, intent: Intent) -> bool:
    """Claim the right to send the create of one attempt, durably; only who gets True sends it, once (P2).

    Raises:
        InternalError: the batch is not staged or is closed, or the attempt before has not come to nothing.
    """
    key, attempt = intent.batch_key, intent.attempt
    names = file_names(ledger, key)
    if STAGED_NAME not in names or COLLECTED_NAME in names:
        raise InternalError(
            f"batch {key} can't be created: it is {'closed' if COLLECTED_NAME in names else 'not staged'}"
        )
    if attempt > 0 and f"void-{attempt - 1}.json" not in names:
        raise InternalError(f"batch {key} can't be created again: attempt {attempt - 1} may still be at the provider")
    return create_if_absent(intent_path(ledger, key, attempt), encode_record(intent))


def record_handle(ledger: str, key: str, attempt: int, handle: Handle) -> bool:
    """Say which batch of the provider an attempt is; False when it was recorded before.

    Raises:
        InternalError: another batch of the provider was recorded for it.
    """
    name = f"handle-{attempt}.json"
    if _record(ledger, key, name, handle):
        return True
    recorded = read_record(ledger, key, batch_path(ledger, key, name), Handle)
    if recorded.provider_batch_id != handle.provider_batch_id:
        raise InternalError(
            f"batch {key} is at the provider twice, as {recorded.provider_batch_id} and as "
            f"{handle.provider_batch_id}; cancel the second there, the first is on record"
        )
    return False


def record_void(ledger: str, key: str, attempt: int, void: Void) -> bool:
    """Say that an attempt came to nothing, so that another may follow; False when it was said before."""
    return _record(ledger, key, f"void-{attempt}.json", void)


def record_cancel(ledger: str, key: str, attempt: int, cancel: Cancel) -> bool:
    """Say that cancelling was asked for; False when it was said before."""
    return _record(ledger, key, f"cancel-{attempt}.json", cancel)


def record_ended(ledger: str, key: str, attempt: int, ended: Ended) -> bool:
    """Say in which terminal state the provider left an attempt; False when it was said before."""
    return _record(ledger, key, f"ended-{attempt}.json", ended)


def record_collected(ledger: str, key: str, collected: Collected) -> bool:
    """Close a batch: what was sent of it is in the answers ledger, durably; False when it was closed before."""
    return _record(ledger, key, COLLECTED_NAME, collected)


def creates_since(ledger: str, since_s: float, *, place: Place | None = None) -> int:
    """Return how many creates were begun at `since_s` or later, those that came to nothing included.

    Args:
        ledger: the ledger's folder.
        since_s: Unix seconds.
        place: count those of batches that are there (`rules/place.py`); None: all.

    Raises:
        InternalError: an intent or a staged.json is damaged.
    """
    keys = [
        key_of_intent(path) for path in list_files(intents_folder(ledger), ".json") if _began(ledger, path, since_s)
    ]
    return len(keys) if place is None else sum(_is_batch_at(ledger, key, place) for key in keys)


def tokens_in_flight(ledger: str, *, place: Place | None = None) -> int:
    """Return the estimated prompt tokens of all batches that wait at the provider, or may.

    Args:
        ledger: the ledger's folder.
        place: count the batches that are there (`rules/place.py`); None: all.

    Raises:
        InternalError: as `read_entry`.
    """
    staged = [entry.staged for entry in open_entries(ledger) if entry.phase is not Phase.ENDED]
    return sum(one.token_estimate for one in staged if place is None or _is_at(one, place))


def give_up(ledger: str, entry: BatchEntry, run_id: str, now_s: float) -> bool:
    """Make the requests of a batch in phase STAGED fresh again.

    One that never reached for the provider is removed, and True returned; any other is closed as abandoned and stays
    on record without its request file, so its key is never used again.

    Args:
        ledger: the ledger's folder; the lease must be held.
        entry: the batch.
        run_id: the run that gives it up.
        now_s: Unix seconds.

    Raises:
        InternalError: the batch is in flight or closed.
    """
    if entry.phase is not Phase.STAGED:
        raise InternalError(f"batch {entry.key} can't be given up: it is {entry.phase}")
    if entry.is_untouched:
        _remove(ledger, entry.key)
        return True
    record_collected(ledger, entry.key, Collected(run_id, now_s, 0, 0, 0, ABANDONED))
    # Nothing of it ran, so no answer will ever be held against it; and it may hold prompts that audit must not show.
    remove(requests_path(ledger, entry.key))
    return False


def sweep_unsent(ledger: str, run_id: str, now_s: float) -> list[str]:
    """Give up every batch that was staged and not sent, and remove what a kill left half staged.

    Args:
        ledger: the ledger's folder; the lease must be held, and this run not have staged anything yet.
        run_id: the run that sweeps.
        now_s: Unix seconds.

    Returns:
        The keys of the batches given up.

    Raises:
        InternalError: as `read_entry`.
    """
    given_up = []
    for key in batch_keys(ledger):
        names = file_names(ledger, key)
        if COLLECTED_NAME in names:
            continue
        entry = fold(ledger, key, names)
        if entry is None:
            # Not a batch yet, or the marks of a group of the pool, which count in their own run only.
            remove_tree(batch_folder(ledger, key))
        elif entry.phase is Phase.STAGED:
            give_up(ledger, entry, run_id, now_s)
            given_up.append(key)
    _sweep_requests(ledger)
    return given_up


def _began(ledger: str, path: str, since_s: float) -> bool:
    at_s = _intended.get(path)
    if at_s is None:
        at_s = _intended[path] = read_record(ledger, key_of_intent(path), path, Intent).intended_at_s
    return at_s >= since_s


def _is_batch_at(ledger: str, key: str, place: Place) -> bool:
    try:
        staged = read_record(ledger, key, batch_path(ledger, key, STAGED_NAME), Staged)
    except FileNotFoundError:
        return True  # Somebody's create it was; rather wait than be refused.
    return _is_at(staged, place)


def _is_at(staged: Staged, place: Place) -> bool:
    return is_same_place((staged.provider_name, staged.address), place)


def _record(ledger: str, key: str, name: str, record: object) -> bool:
    return create_if_absent(batch_path(ledger, key, name), encode_record(record))


def _sweep_requests(ledger: str) -> None:
    folder, known = join(ledger, "requests"), set(batch_keys(ledger))
    # The name of a draft that a kill left begins with a dot: it is of no batch.
    stale = [path for path in list_all(folder) if PurePath(path).name.partition(".")[0] not in known]
    for path in stale:
        remove(path)
    if stale:
        sync_folder(folder)


def _remove(ledger: str, key: str) -> None:
    # staged.json goes first, durably, so that no batch is ever without its requests.
    remove(batch_path(ledger, key, STAGED_NAME))
    remove_tree(batch_folder(ledger, key))
    sync_folder(batches_folder(ledger))
    for path in (requests_path(ledger, key), members_path(ledger, key)):
        remove(path)
