"""Which input files a run could not read to the end, as its dead letters tell."""

import orjson

from transforms.records.failure import FailureKind
from transforms.storage.objects import list_files, open_read

_MARK = f'"{FailureKind.DAMAGED_FILE}"'.encode()


def damaged_files(folder: str) -> list[str]:
    """Return the input files that have a dead letter of kind DAMAGED_FILE, sorted; memory is flat.

    Args:
        folder: of a run's dead letters (JSON lines); [] when it is absent.
    """
    found: set[str] = set()
    for path in list_files(folder, ".jsonl"):
        with open_read(path) as lines:
            for line in lines:
                if _MARK in line and (letter := orjson.loads(line))["kind"] == FailureKind.DAMAGED_FILE:
                    found.add(letter["source"]["path"])
    return sorted(found)
