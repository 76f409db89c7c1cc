"""Prompts of batches that are closed: gone from the ledger where the job's audit must not show them."""

from pathlib import PurePath

from transforms.storage.batch_fold import COLLECTED_NAME, batch_path
from transforms.storage.objects import exists, join, list_files, remove, sync_folder

_SUFFIX = ".jsonl"


def sweep_prompts(ledger: str) -> list[str]:
    """Remove the request files of closed batches.

    Whoever closes a batch does so too, but a kill may come between the two. Members files, which hold no prompts, stay.

    Args:
        ledger: the ledger's folder; the lease must be held.

    Returns:
        The keys of the batches whose request file was still there.
    """
    folder = join(ledger, "requests")
    swept = []
    for path in list_files(folder, _SUFFIX):
        # The name of a members file ends alike, but makes no batch's key.
        key = PurePath(path).name.removesuffix(_SUFFIX)
        if exists(batch_path(ledger, key, COLLECTED_NAME)):
            remove(path)
            swept.append(key)
    if swept:
        sync_folder(folder)
    return swept
