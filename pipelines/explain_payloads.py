"""What the audit has of a row's texts: whole, redacted, as hashes, nothing; or dropped later by retention."""

from collections.abc import Iterable
from typing import Any

import orjson

from pipelines.text import moment
from transforms.records.errors import InternalError
from transforms.rules.redaction import REDACTED
from transforms.storage.run_chain import read_retention, retention_paths


def read_retentions(output: str, run_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return what dropped payloads of these runs: {"run_id", "file", "at", "by"}, oldest first."""
    found = []
    for path in (path for run_id in dict.fromkeys(run_ids) for path in retention_paths(output, run_id)):
        try:
            facts = read_retention(output, path)
        except InternalError:  # `rowbeam verify` tells of it
            facts = {}
        at, rule = facts.get("forgotten_at"), facts.get("rule", {}).get("older_than")
        by = None if rule is None else f"rowbeam {facts.get('rowbeam') or 'from source'} forget, older than {rule}"
        found.append({"run_id": path.split("/")[1], "file": path, "at": at, "by": by})
    return sorted(found, key=lambda one: (str(one["at"]), str(one["file"])))


def tell_payload(text: str | None, manifest: dict[str, Any], retentions: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Tell what is left of a request's or an answer's body.

    Args:
        text: the audit's column.
        manifest: of the run that made the call.
        retentions: as `read_retentions` gives them.

    Returns:
        {"kept": whole, redacted, hash, dropped or none, "sha256" and "bytes" of the body as it was kept or hashed,
        "dropped_at", "note": a clause for people, null where the text is whole}.
    """
    audit = manifest["job"].get("audit", {})
    setting = audit.get("payloads", "full")
    blank = {"sha256": None, "bytes": None, "dropped_at": None}
    if text is None:
        return {"kept": "none", **blank, "note": f"not kept (audit.payloads: {setting})"}
    body = _object(text.encode())
    if set(body) == {"sha256", "bytes"}:
        return _hashed(body, manifest, setting, list(retentions))
    if audit.get("redact") and REDACTED in text:
        columns = ", ".join(audit["redact"])
        return {"kept": "redacted", **blank, "note": f"the values of {columns} are left out (audit.redact)"}
    return {"kept": "whole", **blank, "note": None}


def _hashed(
    body: dict[str, Any], manifest: dict[str, Any], setting: str, retentions: list[dict[str, Any]]
) -> dict[str, Any]:
    facts = {"sha256": body["sha256"], "bytes": body["bytes"]}
    hashed = f"its sha256 is {body['sha256']}, of {body['bytes']} bytes"
    if setting == "hash":
        note = f"kept as a hash only (audit.payloads: hash): {hashed}"
        return {"kept": "hash", **facts, "dropped_at": None, "note": note}
    own = [one for one in retentions if one["run_id"] == manifest["run_id"]]
    at = own[0]["at"] if own else None
    when = f" on {_moment(at)}" if at else ""
    by = f" by {own[0]['by']}" if own and own[0]["by"] else ""
    note = f"the text was dropped{when}{by} (retention); {hashed}: whoever has the text can prove that it was this one"
    return {"kept": "dropped", **facts, "dropped_at": at, "note": note}


def _moment(at: Any) -> str:
    try:
        return moment(str(at))
    except ValueError:
        return str(at)


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
