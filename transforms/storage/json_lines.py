"""JSON-lines files in flat memory, whole or absent: the counterpart of tables.ParquetWriter."""

from pathlib import Path
from typing import Any

import orjson

from transforms.storage.objects import ensure_folder, parent, publish, sync_file, temporary_path
from transforms.storage.tables import json_default

_BUFFER_BYTES = 1 << 20


class JsonLinesWriter:
    """Writes one file of one JSON object a line; it takes its name when it is complete and on disk."""

    def __init__(self, path: str) -> None:
        self._path = path
        ensure_folder(parent(path))
        self._temporary = temporary_path(path)
        self._file = Path(self._temporary).open("wb", buffering=_BUFFER_BYTES)  # noqa: SIM115 - closed by close

    def append(self, row: dict[str, Any]) -> None:
        """Add one object. Lone surrogates, which JSON in UTF-8 can't hold, are written as escapes."""
        try:
            line = orjson.dumps(row, default=json_default)
        except TypeError:
            import json

            line = json.dumps(row, default=json_default).encode("ascii")
        self._file.write(line + b"\n")

    def close(self) -> None:
        """Give the file its name; when this returns it survives a power cut."""
        self._file.close()
        sync_file(self._temporary)
        publish(self._temporary, self._path)

    def discard(self) -> None:
        """Drop the file."""
        self._file.close()
        Path(self._temporary).unlink(missing_ok=True)
