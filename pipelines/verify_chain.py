"""The chain of runs: whether a run or a retention record was changed, removed or put in, by hashes alone.

What no chain can show is history rewritten from some run on, all hashes made anew: that takes the head's hash, noted
where whoever writes to the output can't (`rowbeam verify --expect`).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pipelines.verify_findings import Check, Scope
from transforms.records.errors import InternalError
from transforms.storage.objects import read_bytes, sha256_file
from transforms.storage.run_chain import read_retention, retention_paths

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class History:
    """The chain, walked back from its head.

    Attributes:
        hashes: of each link's file, the newest first.
        names: likewise, the run's id or the retention record's path.
        is_whole: whether the walk came to the beginning.
    """

    hashes: list[str]
    names: list[str]
    is_whole: bool


def walk(scope: Scope, head: dict[str, Any] | None) -> History:
    """Follow the links from the head back, as far as they lead to files that are there."""
    known = {manifest["run_id"]: manifest for manifest in scope.closed}
    hashes: list[str] = []
    names: list[str] = []
    link = head
    while link is not None:
        name = link.get("retention") or link["run_id"]
        if name in names or link["run_id"] not in known:
            return History(hashes, names, is_whole=False)
        names.append(name)
        hashes.append(link.get("retention_sha256") or link["manifest_sha256"])
        try:
            link = read_retention(scope.output, name)["previous"] if "retention" in link else known[name]["previous"]
        except (InternalError, FileNotFoundError):
            return History(hashes, names, is_whole=False)
    return History(hashes, names, is_whole=True)


def check_chain(scope: Scope, history: History) -> list[Check]:
    """Check that every link leads to the file it was made for, and that all runs and records are in one chain."""
    chain = Check("chain", "each run names the hash of the one before, and none is missing, changed or put in")
    known = {manifest["run_id"] for manifest in scope.closed}
    for manifest in scope.closed:
        _check_link(scope, chain, f"run {manifest['run_id']}", manifest["previous"], known)
    records = retention_paths(scope.output)
    for path in records:
        try:
            _check_link(scope, chain, path, read_retention(scope.output, path)["previous"], known)
        except InternalError as error:
            chain.found(str(error))
    if history.is_whole and history.names:
        for name in sorted({*known, *records} - set(history.names)):
            chain.found(
                f"{_called(name)} is not in the chain that ends with {_called(history.names[0])}: it was put in"
            )
    return [chain, _check_latest(scope)]


def check_expected(history: History, expected: str) -> tuple[Check, dict[str, Any] | None]:
    """Check that a hash that was noted earlier stands for a part of the history that is there.

    Returns:
        The check, and what the hash is of: {"name", "after" (links that came since)}; None when it is of nothing here.
    """
    check = Check("expect", "the hash that was noted is that of this history, or of its beginning")
    noted = expected.strip().lower()
    if noted in history.hashes:
        place = history.hashes.index(noted)
        return check, {"name": _called(history.names[place]), "after": place}
    if not _SHA256.fullmatch(noted):
        check.found(f"{expected!r} is no sha256: 64 hexadecimal digits, as verify prints them after `head`")
    else:
        check.found(
            f"{_short(noted)}... is the hash of nothing here: history was rewritten, or it is of another output"
        )
    return check, None


def _check_link(scope: Scope, chain: Check, who: str, link: dict[str, Any] | None, known: set[str]) -> None:
    if link is None:
        return
    before = link["run_id"]
    if before not in known:
        chain.found(f"{who} names run {before} before it, and that run is gone: restore runs/{before}")
        return
    name = f"run {before}: manifest.json"
    _check_hash(scope, chain, who, (f"runs/{before}/manifest.json", name), link["manifest_sha256"])
    if retention := link.get("retention"):
        _check_hash(scope, chain, who, (retention, retention), link["retention_sha256"])


def _check_hash(scope: Scope, chain: Check, who: str, place: tuple[str, str], listed: str) -> None:
    """Check a file, given by its path in the output and its name for people, against its hash."""
    path, name = Path(scope.output) / place[0], place[1]
    if not path.is_file():
        chain.found(f"{name} is gone, and {who} names it: restore it")
        return
    if scope.is_linked(place[0]):
        chain.found(f"{name} is a symbolic link: put the file itself there")
    digest, _ = sha256_file(str(path))
    if digest != listed:
        chain.found(
            f"{name} was changed after {who} took its hash (it was {_short(listed)}..., is {_short(digest)}...)"
        )


def _called(name: str) -> str:
    return name if "/" in name else f"run {name}"


def _check_latest(scope: Scope) -> Check:
    check = Check("latest", "latest.json names a run that is there and as it was")
    ended = [manifest for manifest in scope.closed if manifest["status"] != "crashed"]
    path = Path(scope.output) / "latest.json"
    try:
        latest = orjson.loads(read_bytes(str(path)))
        run_id, status, manifest_path = latest["run_id"], latest["status"], Path(scope.output) / latest["manifest"]
        hash(run_id)
    except FileNotFoundError:
        if ended:
            check.found(f"latest.json is gone, though run {ended[-1]['run_id']} has ended: run the job again")
        return check
    except (ValueError, KeyError, TypeError) as error:
        check.found(f"latest.json can't be read ({error}): run the job again")
        return check
    known = {manifest["run_id"]: manifest for manifest in ended}
    if run_id in known and scope.is_linked(f"runs/{run_id}/manifest.json"):
        check.found(f"run {run_id}: manifest.json is a symbolic link: put the file itself there")
    if run_id not in known or not manifest_path.is_file():
        check.found(f"latest.json names run {run_id}, which is not there or has not ended: restore runs/{run_id}")
    elif known[run_id]["status"] != status:
        check.found(f"latest.json says run {run_id} ended as {status}, its manifest says {known[run_id]['status']}")
    elif (digest := latest.get("manifest_sha256")) and digest != sha256_file(str(manifest_path))[0]:
        check.found(f"run {run_id}: manifest.json was changed after latest.json took its hash ({_short(digest)}...)")
    return check


def _short(digest: str) -> str:
    return digest[:_SHOWN]
