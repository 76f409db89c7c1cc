"""What a person did to a batch by hand: `ledger/batches/<batch_key>/operator.jsonl`, one JSON object a line."""

import os
from typing import Any

import orjson

from transforms.storage import gcs
from transforms.storage.objects import is_remote, join, parent, sync_folder, write_all


def append_operator_line(ledger: str, batch_key: str, line: dict[str, Any]) -> None:
    """Append a line, durably.

    Args:
        ledger: the ledger's folder; the lease need not be held.
        batch_key: of a batch that has its folder.
        line: `at_s` (Unix seconds) and `what` (cancel, status, resolve), and what belongs to it; no secrets.

    Raises:
        OSError: the disk is full and the like.
    """
    path = join(ledger, "batches", batch_key, "operator.jsonl")
    data = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    if is_remote(path):
        _append_there(path, data)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(parent(path))


def _append_there(path: str, data: bytes) -> None:
    while True:
        try:
            before, generation = gcs.get_versioned(path)
        except FileNotFoundError:
            before, generation = b"", 0
        if gcs.swap(path, before + data, generation):
            return
