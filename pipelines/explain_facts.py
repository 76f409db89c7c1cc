"""Single facts of a row's story, each from what runs wrote: its content's hash, template, model, file, reuse, cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipelines.audit_query import plain
from pipelines.row_values import RowValues

_NO_REASON = "no reason given"


def tell_row_hash(found: RowValues) -> dict[str, Any]:
    """Return {"sha256": of the row's content or null, "note": why it is null}."""
    if found.content_sha256 is not None:
        return {"sha256": found.content_sha256, "note": None}
    note = "the line could not be read as a row" if isinstance(found.values, str) else "the run wrote no values of it"
    return {"sha256": None, "note": note}


def tell_output_file(output: str, manifest: Mapping[str, Any], found: RowValues) -> dict[str, Any] | None:
    """Return where the row was written.

    Returns:
        {"path" below the output, "kind": enriched or dead_letters, "row" from 1 (of a JSON lines file its line; null
        where it can't be told), "is_line", "sha256" of the file by the manifest}; None where nothing was written.
    """
    if found.path is None:
        return None
    path = Path(found.path).relative_to(output).as_posix()
    listed = {f"runs/{manifest['run_id']}/{one['path']}": one["sha256"] for one in manifest["files"]}
    is_line = path.endswith(".jsonl")
    return {"path": path, "kind": found.origin, "row": found.row, "is_line": is_line, "sha256": listed.get(path)}


def tell_template(found: RowValues, manifest: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the version of the templates that made the prompt.

    Returns:
        {"sha256", "source", "system" and "template" (their texts, null where they are in files), "lookup_sha256",
        "lookup_source", "job_sha256"}; what is not on record is null.
    """
    main = next((call for call in calls if call["lane"] == "main"), None)
    prompt = manifest["job"].get("prompt") or {}
    files = [prompt[name] for name in ("system_file", "template_file") if prompt.get(name)]
    return {
        "sha256": found.columns.get("template_hash") or (main["template_sha256"] if main else None),
        "source": found.columns.get("template_source") or ", ".join(files) or "the job file",
        "system": prompt.get("system"),
        "template": prompt.get("template"),
        "lookup_sha256": found.columns.get("lookup_hash") or (main["lookup_sha256"] if main else None),
        "lookup_source": found.columns.get("lookup_source") or ", ".join((prompt.get("lookup") or {}).values()) or None,
        "job_sha256": manifest["job_sha256"],
    }


def tell_model(
    settling: Mapping[str, Any] | None, calls: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Return {"provider", "asked", "answered" (null without an answer), "params"} of the call that settled the row."""
    call = settling or (calls[-1] if calls else None)
    model = manifest["job"].get("model") or {}
    if call is None:
        provider, asked, answered = model.get("provider"), model.get("name"), None
    else:
        provider, asked, answered = call["provider_name"], call["request_model"], call["response_model"]
    return {"provider": provider, "asked": asked, "answered": answered, "params": model.get("params") or {}}


def tell_reuse(
    end: Mapping[str, Any], manifests: Mapping[str, dict[str, Any]], settling: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return why a row's answer was not asked for in its run; None where it was.

    Returns:
        {"run_id", "run_status", "call_id", "asked_at", "same_job": the two runs' jobs have one hash, "reason"}.
    """
    answered_in = end["answered_in_run_id"]
    if answered_in is None or answered_in == end["run_id"]:
        return None
    earlier = manifests.get(answered_in)
    same_job = None if earlier is None else earlier["job_sha256"] == manifests[end["run_id"]]["job_sha256"]
    reason = "the same request (prompt, model, params and schema) was settled there, so it was not sent again"
    return {
        "run_id": answered_in,
        "run_status": earlier["status"] if earlier else None,
        "call_id": end["call_id"],
        "asked_at": settling["started_at"] if settling else None,
        "same_job": same_job,
        "reason": reason,
    }


def tell_cost(calls: Sequence[Mapping[str, Any]], run_id: str) -> dict[str, Any]:
    """Return what a row's calls cost, all runs together; a request that rows share is counted whole.

    Returns:
        {"usd": sum of what is known, null where nothing is, "is_exact": all of it is known, "unknown_calls",
        "reasons": [{"reason", "calls"}] of unknown costs, "by_run": [{"run_id", "calls", "usd", "unknown_calls"}],
        "in_this_run": whether run_id paid for any of it}.
    """
    unknown = [call for call in calls if call["cost_usd"] is None]
    reasons = Counter(call["cost_reason"] or _NO_REASON for call in unknown)
    runs = dict.fromkeys(call["run_id"] for call in calls)
    return {
        "usd": _sum(calls) if calls else "0",
        "is_exact": not unknown,
        "unknown_calls": len(unknown),
        "reasons": [{"reason": reason, "calls": count} for reason, count in reasons.most_common()],
        "by_run": [_by_run(run, [call for call in calls if call["run_id"] == run]) for run in runs],
        "in_this_run": run_id in runs,
    }


def _by_run(run_id: str, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    unknown = sum(call["cost_usd"] is None for call in calls)
    return {"run_id": run_id, "calls": len(calls), "usd": _sum(calls), "unknown_calls": unknown}


def _sum(calls: Sequence[Mapping[str, Any]]) -> Any:
    known = [Decimal(call["cost_usd"]) for call in calls if call["cost_usd"] is not None]
    return plain(sum(known, Decimal(0))) if known else None
