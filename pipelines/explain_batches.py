"""The batches of a row's story: who took them up, what went to and fro with the provider, and where the row waits.

A provider's batch may live through several runs: its members stand in the audit of the run that staged it, and each
run that had to do with it adds a row of its own and its exchanges, numbered on and on by call_index.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.audit_query import AuditQuery, plain
from pipelines.batch_words import LEFT, MODE
from pipelines.sent_prompt import read_error
from transforms.records.row import Outcome
from transforms.storage.batch_members import requests_path

_FACTS = ("batch_id", "run_id", "mode", "status", "submitted_at", "ended_at", "request_count")
#: What the newest run that knows it tells; null for batches of the pool.
_AT_PROVIDER = ("provider_batch_id", "input_file_id", "output_file_id", "error_file_id")
#: Looks that only repeat each other are told as one.
_COLLAPSED = frozenset({"status", "file_status", "listing"})
_EXCHANGE = " of a batch"
#: Characters of a batch's key that messages show (`_batch_send`).
_KEY_CELLS = 12


def find_batches(
    audit: AuditQuery, output: str, end: dict[str, Any], calls: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the batches that a row's requests went by, in the order they were taken up.

    Args:
        audit: of all runs.
        output: the output folder.
        end: the row's line of the audit table rows.
        calls: its LLM calls.

    Returns:
        JSON values with stable keys: batch_id, run_id (that took it up first), mode, status (as the last run left
        it), submitted_at, ended_at, request_count, ordinal, custom_id, batch_key, provider_name, request_model,
        provider_batch_id, input_file_id, output_file_id, error_file_id, line (of the request file, from 1),
        request_file (below the output; null when it is gone), runs, exchanges. A batch of the pool has the same keys.
    """
    called = list(dict.fromkeys(call["batch_id"] for call in calls))
    asked = {call["request_id"] for call in calls} | ({end["request_id"]} - {None})
    if not asked:
        return []
    places = {place["batch_id"]: place for place in audit.places(list(asked))}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in audit.batches(list(dict.fromkeys([*called, *places]))):
        if row["batch_id"] in called or row["mode"] == MODE:
            rows.setdefault(row["batch_id"], []).append(row)
    exchanges = _exchanges(audit, [row for found in rows.values() for row in found if row["mode"] == MODE])
    return [
        _batch(output, found, places.get(batch_id, {}), exchanges.get(batch_id, [])) for batch_id, found in rows.items()
    ]


def find_waiting(batches: Sequence[dict[str, Any]], end: dict[str, Any]) -> dict[str, Any] | None:
    """Return the batch in which a pending row waits, or waited when its run ended; None if it waits in none.

    Returns:
        {"batch_id", "provider_batch_id", "provider_name", "status" (submitted, held_back, unresolved, interrupted),
        "submitted_at", "collected_in_run_id" (null while it waits still)}.
    """
    if end["outcome"] != Outcome.PENDING:
        return None
    for batch in reversed(batches):
        run = next((run for run in batch["runs"] if run["run_id"] == end["run_id"]), None)
        if batch["mode"] == MODE and run is not None and run["status"] in LEFT:
            later = [one["run_id"] for one in batch["runs"] if one["status"] not in LEFT]
            facts = {name: batch[name] for name in ("batch_id", "provider_batch_id", "provider_name")}
            times = {"status": run["status"], "submitted_at": _created_at(batch)}
            return {**facts, **times, "collected_in_run_id": later[-1] if later else None}
    return None


def waiting_reason(reasons: Sequence[dict[str, Any]], batch: dict[str, Any], waiting: dict[str, Any]) -> str:
    """Return why a row waits: what its run said of its batch, or where it is.

    Args:
        reasons: pending_reasons of the run's summary.
        batch: as `find_batches` tells it.
        waiting: as `find_waiting` tells it.
    """
    names = (batch["batch_id"], batch["batch_key"][:_KEY_CELLS])
    said = (entry["reason"] for entry in reasons if any(name in entry["reason"] for name in names))
    where = "is not submitted yet" if waiting["status"] == "held_back" else f"is with {batch['provider_name']}"
    return next(said, f"its batch {batch['batch_id']} {where}")


def sent_in_file(waiting: dict[str, Any], batch: dict[str, Any]) -> str:
    """Return where the prompt of a row that waits can be read."""
    staged = "staged, and not sent yet" if waiting["status"] == "held_back" else "sent in a batch"
    if batch["request_file"] is None or batch["line"] is None:
        return staged
    return f"{staged}: it is line {batch['line']} of the batch's request file"


def _created_at(batch: dict[str, Any]) -> str | None:
    created = [one["first_at"] for one in batch["exchanges"] if one["what"] == "create"]
    return created[-1] if created else None


def _batch(
    output: str, rows: Sequence[dict[str, Any]], place: dict[str, Any], exchanges: list[dict[str, Any]]
) -> dict[str, Any]:
    first, last = rows[0], rows[-1]
    facts = {name: plain(first[name]) for name in _FACTS}
    facts |= {"status": last["status"], "ended_at": plain(last["ended_at"])}
    ordinal = place.get("ordinal")
    at_provider = {name: _newest(rows, name) for name in _AT_PROVIDER}
    is_provider = first["mode"] == MODE
    return {
        **facts,
        "ordinal": ordinal,
        "custom_id": place.get("custom_id"),
        "batch_key": first["batch_key"],
        "provider_name": first["provider_name"],
        "request_model": first["request_model"],
        **at_provider,
        "line": ordinal + 1 if is_provider and ordinal is not None else None,
        "request_file": _request_file(output, first["batch_key"]) if is_provider else None,
        "runs": [_run(row) for row in rows],
        "exchanges": exchanges,
    }


def _newest(rows: Sequence[dict[str, Any]], name: str) -> Any:
    return next((row[name] for row in reversed(rows) if row[name] is not None), None)


def _request_file(output: str, key: str) -> str | None:
    path = Path(requests_path(str(Path(output) / "ledger"), key))
    return path.relative_to(output).as_posix() if path.is_file() else None


def _run(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": row["run_id"],
        "status": row["status"],
        "taken_up_at": plain(row["submitted_at"]),
        "ended_at": plain(row["ended_at"]),
        "succeeded": row["succeeded_count"],
        "failed": row["failed_count"],
        "pending": row["pending_count"],
    }


def _exchanges(audit: AuditQuery, rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the exchanges of provider batches, by batch_id, in their order, looks collapsed."""
    batch_ids = list(dict.fromkeys(row["batch_id"] for row in rows))
    if not batch_ids:
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    for call in audit.exchanges(batch_ids, list(dict.fromkeys(row["run_id"] for row in rows))):
        _add(found.setdefault(call["batch_id"], []), call)
    return found


def _add(told: list[dict[str, Any]], call: dict[str, Any]) -> None:
    one = _exchange(call)
    if not told or one["what"] not in _COLLAPSED or told[-1]["what"] != one["what"]:
        told.append(one)
        return
    before = told[-1]
    told[-1] = {
        **one,
        "count": before["count"] + 1,
        "failed": before["failed"] + one["failed"],
        "first_call_index": before["first_call_index"],
        "first_at": before["first_at"],
        "latency_ms": before["latency_ms"] + one["latency_ms"],
        "error": one["error"] or before["error"],
        "run_ids": list(dict.fromkeys([*before["run_ids"], *one["run_ids"]])),
    }


def _exchange(call: dict[str, Any]) -> dict[str, Any]:
    """Tell one exchange; a collapsed one sums latency_ms, and tells status and id of the last."""
    is_failed = call["status"] == "ERROR"
    return {
        "what": _what(call["cost_reason"]),
        "count": 1,
        "failed": int(is_failed),
        "first_call_index": call["call_index"],
        "last_call_index": call["call_index"],
        "first_at": plain(call["started_at"]),
        "last_at": plain(call["started_at"]),
        "latency_ms": call["latency_ms"],
        "http_status": call["http_status"],
        "provider_request_id": call["provider_request_id"],
        "outcome": call["outcome"],
        "error": read_error(call["error_json"]) if is_failed else None,
        "run_ids": [call["run_id"]],
    }


def _what(cost_reason: str | None) -> str:
    """Return an exchange's name: its cost_reason says what was not billed."""
    name, found, _ = (cost_reason or "").partition(_EXCHANGE)
    return name if found else "exchange"
