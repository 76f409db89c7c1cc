"""A row's life as a list of moments: runs, what went to and fro with providers, its answer; across all runs."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pipelines.audit_query import plain
from pipelines.batch_words import MODE
from pipelines.text import duration, moment

_OUTCOMES = {"enriched": "enriched", "dead_lettered": "a dead letter", "pending": "left pending"}
_EXCHANGES = {
    "upload": "request file uploaded",
    "file_status": "request file checked",
    "create": "batch created",
    "status": "batch looked at",
    "listing": "provider's list looked at",
    "download": "results downloaded",
    "cancel": "cancelling asked for",
}
_LANES = {"main": "question", "repair": "repair"}


def tell_timeline(
    history: Sequence[dict[str, Any]],
    manifests: Mapping[str, dict[str, Any]],
    batches: Sequence[dict[str, Any]],
    calls: Sequence[dict[str, Any]],
    retentions: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return a row's moments in their order.

    Args:
        history: as the story has it.
        manifests: of all runs.
        batches: as the story has them.
        calls: as the story has them.
        retentions: as `read_retentions` gives them.

    Returns:
        {"at" (ISO 8601), "kind": run, exchange, call, end or retention, "what", "detail", "run_id", "took_ms",
        "waited_ms", "is_error"} each; took_ms and waited_ms null where they do not apply.
    """
    found = [
        *_runs(history, manifests, calls, batches),
        *_exchanges(batches),
        *_calls(calls, batches),
        *_drops(retentions),
    ]
    return sorted((one for one in found if one["at"]), key=lambda one: str(one["at"]))


def _moment(at: Any, kind: str, what: str, run_id: str, **facts: Any) -> dict[str, Any]:
    blank = {"detail": None, "took_ms": None, "waited_ms": None, "is_error": False}
    return {"at": plain(at), "kind": kind, "what": what, "run_id": run_id, **blank, **facts}


def _runs(
    history: Sequence[dict[str, Any]],
    manifests: Mapping[str, dict[str, Any]],
    calls: Sequence[dict[str, Any]],
    batches: Sequence[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    outcomes = {past["run_id"]: past for past in history}
    active = {*outcomes, *(call["run_id"] for call in calls)}
    active |= {run["run_id"] for batch in batches for run in batch["runs"]}
    for run_id, manifest in manifests.items():
        if run_id not in active:
            continue
        yield _moment(manifest["started_at"], "run", "run begins", run_id)
        past = outcomes.get(run_id)
        status = manifest["status"]
        if status == "crashed":
            detail = "killed; its calls were put on record by the next run"
            yield _moment(manifest["ended_at"], "end", "last sign of the run", run_id, detail=detail, is_error=True)
        elif past is not None:
            what = f"row is {_OUTCOMES.get(past['outcome'], past['outcome'])}"
            detail = f"run ends: {status}" + _reused(past)
            is_error = past["outcome"] == "dead_lettered"
            yield _moment(manifest["ended_at"], "end", what, run_id, detail=detail, is_error=is_error)


def _reused(past: dict[str, Any]) -> str:
    answered = past["answered_in_run_id"]
    return f"; answer of run {answered} reused" if answered and answered != past["run_id"] else ""


def _exchanges(batches: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for one in batch["exchanges"]:
            what = _EXCHANGES.get(one["what"], one["what"])
            detail = None if one["count"] == 1 else f"{one['count']} times, the last {moment(one['last_at'])}"
            is_error = one["failed"] == one["count"]
            facts = {"detail": detail, "took_ms": one["latency_ms"], "is_error": is_error}
            yield _moment(one["first_at"], "exchange", what, one["run_ids"][0], **facts)


def _calls(calls: Sequence[dict[str, Any]], batches: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    by_batch = {batch["batch_id"] for batch in batches if batch["mode"] == MODE}
    for call in calls:
        what = f"{_LANES.get(call['lane'], call['lane'])}, attempt {call['attempt']}: {call['outcome']}"
        http = "no reply" if call["http_status"] is None else f"HTTP {call['http_status']}"
        is_error = call["outcome"] != "ok"
        if call["batch_id"] in by_batch:
            # Sent with its batch; what is a moment of its own is that the answer is there.
            came = datetime.fromisoformat(call["started_at"]) + timedelta(milliseconds=call["latency_ms"])
            detail = f"{http}, {duration(call['latency_ms'] / 1000)} in the batch"
            yield _moment(came, "call", what, call["run_id"], detail=detail, is_error=is_error)
        else:
            facts = {"took_ms": call["latency_ms"], "waited_ms": call["waited_ms"], "is_error": is_error}
            yield _moment(call["started_at"], "call", what, call["run_id"], detail=http, **facts)


def _drops(retentions: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in retentions:
        yield _moment(one["at"], "retention", "texts dropped by retention", one["run_id"], detail=one["by"])
