"""Keys that must not be found anywhere afterwards, and where to look for them (P9)."""

import base64
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

CORE = secrets.token_hex(12)
PLAIN = f"sk-canary-{CORE}"
#: A key that looks different wherever text is escaped.
ODD = f'canary{CORE}/+"q\\z='


def _forms(key: str) -> set[bytes]:
    """Return every form a key can take on its way into a file: as it is, escaped, and inside base64."""
    forms = {key, json.dumps(key)[1:-1], json.dumps(json.dumps(key))[1:-1], quote(key, safe=""), CORE}
    encoded = set()
    for text in (key, f"Bearer {key}", CORE):
        for shift in range(3):
            whole = base64.b64encode(b"\0" * shift + text.encode())
            # The characters at both ends depend on what stands beside the key.
            encoded |= {whole[4:-4], base64.urlsafe_b64encode(b"\0" * shift + text.encode())[4:-4]}
    return {form.encode() for form in forms} | encoded


def written_in(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield every file's bytes, and what compressed tables hold."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()
            if path.suffix == ".parquet":
                yield path, repr(pq.read_table(path).to_pylist()).encode()


def leaks(key: str, data: bytes) -> list[bytes]:
    """Return the forms of a key that are in some bytes; empty when none is."""
    return [form for form in _forms(key) if form in data]
