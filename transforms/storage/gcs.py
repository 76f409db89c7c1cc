"""Objects of Google Cloud Storage, as `objects` needs them: whole or absent, created once, listed strongly consistent.

What enters is a path `gs://bucket/name`. Every failure leaves as a FileNotFoundError or a StorageError, which is an
OSError, so that what is said of a full disk is said of a refused bucket too. Credentials are the machine's own
(application default credentials); `STORAGE_EMULATOR_HOST` names a stand-in that wants none.

Source: https://cloud.google.com/storage/docs/request-preconditions and
https://cloud.google.com/storage/docs/retry-strategy.
"""

import io
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from transforms.rules.globs import fixed_prefix, glob_regex

SCHEME = "gs://"

#: Uploads above one chunk are resumable, and go on where a broken connection left them. A multiple of 256 KiB.
_CHUNK_BYTES = 8 << 20
_CONNECTIONS = 64
#: Under this name an object keeps who created it: the one way to tell a creation whose reply was lost from another's.
_WRITER = "rowbeam-writer"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_FOLDER_FIELDS = "prefixes,nextPageToken,items(name)"


class StorageError(OSError):
    """The bucket can't be reached or refuses; the text says which object, what happened and what to do."""


def split(path: str) -> tuple[str, str]:
    """Return (bucket, object name) of a `gs://` path."""
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise StorageError(f"{path}: is no place in a bucket; write gs://bucket/name")
    return bucket, name


def split_object(path: str) -> tuple[str, str]:
    """Return (bucket, object name) of the `gs://` path of an object; raises StorageError where it names none."""
    bucket, name = split(path)
    if not name:
        raise StorageError(f"{path}: names a bucket, not a file in it; write gs://bucket/name")
    return bucket, name


def create(path: str, data: bytes) -> bool:
    """Create an object, unless it exists; exactly one of any number of racing writers gets True.

    A creation whose reply was lost is tried again, and then told from a rival's by the writer's mark.
    """
    from google.api_core.exceptions import PreconditionFailed

    blob, mark = _blob(path), secrets.token_hex(16)
    blob.metadata = {_WRITER: mark}
    with _said(path):
        try:
            blob.upload_from_string(data, content_type=_content_type(path), if_generation_match=0, retry=_retry())
        except PreconditionFailed:
            found = _bucket(path).get_blob(split_object(path)[1], retry=_retry())
            return found is not None and (found.metadata or {}).get(_WRITER) == mark
    return True


def put(path: str, data: bytes) -> None:
    """Create or replace an object: readers see the old bytes or the new ones."""
    with _said(path):
        _blob(path).upload_from_string(data, content_type=_content_type(path), retry=_retry())


def put_file(source: str, path: str) -> None:
    """Create or replace an object with a local file's content, resumably."""
    with _said(path):
        blob = _bucket(path).blob(split_object(path)[1], chunk_size=_CHUNK_BYTES)
        blob.upload_from_filename(source, content_type=_content_type(path), retry=_retry())


def swap(path: str, data: bytes | None, generation: int) -> bool:
    """Replace (or with None: delete) an object if it still has this generation (0: is absent); False if it hasn't."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    blob, mark = _blob(path), secrets.token_hex(16)
    blob.metadata = {_WRITER: mark}
    with _said(path):
        try:
            if data is None:
                blob.delete(if_generation_match=generation, retry=_retry())
            else:
                blob.upload_from_string(
                    data, content_type=_content_type(path), if_generation_match=generation, retry=_retry()
                )
        except NotFound:
            return False
        except PreconditionFailed:
            found = None if data is None else _bucket(path).get_blob(split_object(path)[1], retry=_retry())
            return found is not None and (found.metadata or {}).get(_WRITER) == mark
    return True


def get(path: str) -> bytes:
    """Return an object's content; raises FileNotFoundError when it is absent."""
    with _said(path):
        return cast(bytes, _blob(path).download_as_bytes(retry=_retry()))


def get_versioned(path: str) -> tuple[bytes, int]:
    """Return an object's content with the generation that it belongs to; raises FileNotFoundError when it is absent."""
    blob = _blob(path)
    with _said(path):
        data = cast(bytes, blob.download_as_bytes(retry=_retry()))
        return data, int(blob.generation)


def get_file(path: str, target: str) -> None:
    """Download an object to a local file, checked against its checksum."""
    with _said(path):
        _blob(path).download_to_filename(target, retry=_retry())


def open_read(path: str) -> IO[bytes]:
    """Open an object for reading; bytes come by ranges as they are asked for. Raises FileNotFoundError when absent."""
    blob = _blob(path)
    with _said(path):
        blob.reload(retry=_retry())
        # Pinned to the generation that is there now: an object replaced while it is read gives an error, not a mixture.
        pinned = _bucket(path).blob(blob.name, generation=blob.generation)
        return io.BufferedReader(cast(io.RawIOBase, _Reader(pinned, path, int(blob.size))), _CHUNK_BYTES)


def stat(path: str) -> tuple[int, int] | None:
    """Return (size in bytes, generation) of an object, or None when it is absent."""
    with _said(path):
        found = _bucket(path).get_blob(split_object(path)[1], retry=_retry())
    return None if found is None else (int(found.size), int(found.generation))


def remove(path: str) -> bool:
    """Delete an object; False when there was none."""
    from google.api_core.exceptions import NotFound

    with _said(path):
        try:
            _blob(path).delete(retry=_retry())
        except NotFound:
            return False
    return True


def move(source: str, target: str) -> None:
    """Give an object of one bucket another name, replacing what has it; may be done again after a crash in the middle."""
    blob = _blob(source)
    with _said(source):
        _bucket(source).copy_blob(blob, _bucket(target), split_object(target)[1], retry=_retry())
    remove(source)  # a try of ours whose reply was lost may have done it


def listed(folder: str, *, deep: bool = False) -> Iterator[tuple[str, int]]:
    """Yield (path, size in bytes) of the objects in a folder, by name; deep: with those of folders below."""
    bucket, name = split(folder)
    prefix = f"{name.rstrip('/')}/" if name.rstrip("/") else ""
    with _said(folder):
        found = _client().list_blobs(bucket, prefix=prefix, delimiter=None if deep else "/", retry=_retry())
        for blob in found:
            if not blob.name.endswith("/"):
                yield f"{SCHEME}{bucket}/{blob.name}", int(blob.size)


def folders(folder: str) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    bucket, name = split(folder)
    prefix = f"{name.rstrip('/')}/" if name.rstrip("/") else ""
    with _said(folder):
        found = _client().list_blobs(bucket, prefix=prefix, delimiter="/", fields=_FOLDER_FIELDS, retry=_retry())
        for _ in found:  # the prefixes are known when all pages were read
            pass
        return sorted(one.removeprefix(prefix).rstrip("/") for one in found.prefixes)


def matching(pattern: str) -> list[str]:
    """Return the objects whose names match a glob (`*`, `?`, `[...]` within a name, `**` across folders), sorted."""
    bucket, name = split(pattern)
    # Servers that stand in for the real one don't know the glob: what they give is looked at once more.
    wanted, prefix = glob_regex(name), fixed_prefix(name)
    with _said(pattern):
        found = _client().list_blobs(bucket, prefix=prefix, match_glob=name, retry=_retry())
        return sorted(f"{SCHEME}{bucket}/{blob.name}" for blob in found if wanted.fullmatch(blob.name))


class _Reader(io.RawIOBase):
    """Ranged reads of one generation of an object."""

    def __init__(self, blob: Any, path: str, size: int) -> None:
        super().__init__()
        self._blob = blob
        self._path = path
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        with _said(self._path):
            data = self._blob.download_as_bytes(
                start=self._at, end=self._at + wanted - 1, checksum=None, raw_download=True, retry=_retry()
            )
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@contextmanager
def _said(path: str) -> Iterator[None]:
    """Turn what the library raises into FileNotFoundError or a StorageError that tells what to do."""
    from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except NotFound as error:
        bucket = split(path)[0]
        if "specified bucket does not exist" in str(error.message).lower():
            raise StorageError(f"{path}: the bucket {bucket} does not exist; create it, or correct the path") from error
        raise FileNotFoundError(2, "no such object", path) from error
    except GoogleAPICallError as error:
        raise StorageError(f"{path}: {_reason(error)}") from error
    except GoogleAuthError as error:
        text = "no credentials for Google Cloud Storage; run `gcloud auth application-default login`, or start this where a service account is attached"
        raise StorageError(f"{path}: {text} ({' '.join(str(error).split())[:200]})") from error
    except (RetryError, RequestException) as error:
        raise StorageError(f"{path}: the bucket can't be reached ({type(error).__name__}); try again") from error


def _reason(error: Any) -> str:
    said = " ".join(str(error.message).split())[:300]
    if error.code in (401, 403):
        return f"the bucket refuses; grant this account roles/storage.objectUser on it ({error.code}: {said})"
    return f"the bucket answered {error.code}: {said}"


def _content_type(path: str) -> str:
    types = {".json": "application/json", ".jsonl": "application/x-ndjson", ".html": "text/html"}
    return types.get(Path(path).suffix, "application/octet-stream")


def _blob(path: str) -> Any:
    return _bucket(path).blob(split_object(path)[1])


def _bucket(path: str) -> Any:
    return _client().bucket(split(path)[0])


def _client() -> Any:
    return _client_of(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST"))


@lru_cache(maxsize=1)
def _client_of(_pid: int, emulator: str | None) -> Any:
    """Return this process's client: a fork needs its own, since sockets are not to be shared."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage  # type: ignore[import-untyped]
    from requests.adapters import HTTPAdapter

    nobody = cast(Callable[[], Any], AnonymousCredentials)
    client = storage.Client(project="local", credentials=nobody()) if emulator else storage.Client()
    for scheme in ("https://", "http://"):
        # As many connections are kept as there may be threads that use them at once.
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))  # noqa: SLF001 - the library has no other way
    return client


def _retry() -> Any:
    """Return the library's own back-off: all we do may be done twice, or is guarded by a generation."""
    from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]

    return DEFAULT_RETRY
