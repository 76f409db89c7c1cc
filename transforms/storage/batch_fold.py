"""Where the small files of provider batches are, and how they fold into a `BatchEntry`: the reading half.

`ledger/batches/<batch_key>/` and `ledger/intents/` hold JSON files, each created once and durably before the next step
is taken; whatever prefix of them a crash leaves, the fold says what may and what must not follow.
"""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import TypeVar

from transforms.records.errors import InternalError
from transforms.storage.batch_entry import (
    BatchEntry,
    Cancel,
    Collected,
    Ended,
    Handle,
    Intent,
    Staged,
    Upload,
    Void,
    decode_record,
)
from transforms.storage.objects import exists, join, list_files, list_folders, read_bytes

STAGED_NAME = "staged.json"
COLLECTED_NAME = "collected.json"

#: Marks of the pool's groups (`CallModel`), which have folders beside those of batches.
_MARK_OF_GROUP = "taken-"
_NUMBERED = re.compile(r"(uploaded|handle|void|cancel|ended)-(0|[1-9][0-9]{0,8})\.json")
_Record = TypeVar("_Record")
#: Kind of file -> the attempts that have one.
_Attempts = Mapping[str, list[int]]


def batches_folder(ledger: str) -> str:
    """Return the folder that has a folder for each batch."""
    return join(ledger, "batches")


def batch_path(ledger: str, key: str, name: str) -> str:
    """Return the path of a file of one batch."""
    return join(ledger, "batches", key, name)


def batch_folder(ledger: str, key: str) -> str:
    """Return the folder of one batch."""
    return join(ledger, "batches", key)


def intents_folder(ledger: str) -> str:
    """Return the folder of all batches' intents."""
    return join(ledger, "intents")


def intent_path(ledger: str, key: str, attempt: int) -> str:
    """Return the path of the intent of one attempt."""
    return join(ledger, "intents", f"{key}.{attempt}.json" if attempt else f"{key}.json")


def key_of_intent(path: str) -> str:
    """Return the batch whose intent this is."""
    return PurePath(path).name.partition(".")[0]


def batch_keys(ledger: str) -> list[str]:
    """Return the keys of the batches that have a folder, whatever is in it; sorted."""
    return list_folders(batches_folder(ledger))


def file_names(ledger: str, key: str) -> set[str]:
    """Return the names of a batch's files; empty when there are none, as in the folder of a group of the pool."""
    names = {PurePath(path).name for path in list_files(batch_folder(ledger, key), ".json")}
    return {name for name in names if not name.startswith(_MARK_OF_GROUP)}


def read_record(ledger: str, key: str, path: str, record_class: type[_Record]) -> _Record:
    """Return the record in one of a batch's files.

    Raises:
        FileNotFoundError: there is no such file.
        InternalError: it is damaged; names it and the cure.
    """
    try:
        return decode_record(record_class, read_bytes(path))
    except ValueError as error:
        raise InternalError(f"{path} is damaged ({error}); {_cure(ledger, key)}") from error


def read_entry(ledger: str, key: str) -> BatchEntry | None:
    """Return what the ledger knows of a batch; None when it is not staged.

    Raises:
        InternalError: one of its files is damaged, or staged.json is gone while others are there.
    """
    return fold(ledger, key, file_names(ledger, key))


def fold(ledger: str, key: str, names: set[str]) -> BatchEntry | None:
    """Do what `read_entry` does, for names that `file_names` gave.

    Intents are looked for after the names were listed, so of what other workers write meanwhile, an intent may be
    seen and the void before it or the handle after it not: the phase is then IN_DOUBT, the careful one.
    """
    if STAGED_NAME not in names:
        if names or exists(intent_path(ledger, key, 0)):
            raise InternalError(f"{batch_path(ledger, key, STAGED_NAME)} is missing; {_cure(ledger, key)}")
        return None
    staged = read_record(ledger, key, batch_path(ledger, key, STAGED_NAME), Staged)
    if staged.batch_key != key:
        raise InternalError(f"{batch_path(ledger, key, STAGED_NAME)} is of another batch; {_cure(ledger, key)}")
    attempts = _attempts(names)
    newest = _newest(ledger, key, attempts)
    attempt = newest + 1 if newest < 0 or newest in attempts["void"] else newest

    def own(kind: str, record_class: type[_Record]) -> _Record | None:
        path = batch_path(ledger, key, f"{kind}-{attempt}.json")
        return read_record(ledger, key, path, record_class) if attempt in attempts[kind] else None

    return BatchEntry(
        staged=staged,
        attempt=attempt,
        intent=_intent(ledger, key, attempt),
        handle=own("handle", Handle),
        ended=own("ended", Ended),
        cancel=own("cancel", Cancel),
        collected=_collected(ledger, key, names),
        uploads={
            n: read_record(ledger, key, batch_path(ledger, key, f"uploaded-{n}.json"), Upload).file_id
            for n in attempts["uploaded"]
        },
        voids=tuple(
            read_record(ledger, key, batch_path(ledger, key, f"void-{n}.json"), Void) for n in attempts["void"]
        ),
    )


def read_void(ledger: str, key: str, attempt: int) -> Void | None:
    """Return why an attempt came to nothing; None where that is not on record.

    Raises:
        InternalError: the record is damaged.
    """
    path = batch_path(ledger, key, f"void-{attempt}.json")
    return read_record(ledger, key, path, Void) if exists(path) else None


def entries(ledger: str, *, with_closed: bool) -> list[BatchEntry]:
    """Return the batches, the oldest first; closed ones are not even read unless they are asked for.

    Raises:
        InternalError: as `read_entry`.
    """
    found = []
    for key in batch_keys(ledger):
        names = file_names(ledger, key)
        if with_closed or COLLECTED_NAME not in names:
            entry = fold(ledger, key, names)
            if entry is not None:
                found.append(entry)
    return sorted(found, key=lambda entry: (entry.staged.staged_at_s, entry.key))


def _attempts(names: set[str]) -> _Attempts:
    found: dict[str, list[int]] = {kind: [] for kind in ("uploaded", "handle", "void", "cancel", "ended")}
    for match in map(_NUMBERED.fullmatch, names):
        if match is not None:
            found[match[1]].append(int(match[2]))
    return {kind: sorted(numbers) for kind, numbers in found.items()}


def _newest(ledger: str, key: str, attempts: _Attempts) -> int:
    """Return the newest attempt whose create was begun; -1 when there is none."""
    newest = max((number for kind in ("handle", "void", "cancel", "ended") for number in attempts[kind]), default=-1)
    while exists(intent_path(ledger, key, newest + 1)):
        newest += 1
    return newest


def _intent(ledger: str, key: str, attempt: int) -> Intent | None:
    path = intent_path(ledger, key, attempt)
    return read_record(ledger, key, path, Intent) if exists(path) else None


def _collected(ledger: str, key: str, names: set[str]) -> Collected | None:
    if COLLECTED_NAME not in names:
        return None
    return read_record(ledger, key, batch_path(ledger, key, COLLECTED_NAME), Collected)


def _cure(ledger: str, key: str) -> str:
    return (
        f"restore it from a backup; or, if the provider has no batch of this job that is under way, move all that is "
        f"named {key} out of {ledger}, and what it asked is asked and paid again"
    )
