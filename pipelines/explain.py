"""One row's story, from its source line to its output cell, across all runs of an output (P5).

Read from the audit tables, the enriched rows and the dead letters, and of a run that is not sealed yet from its ledger;
makes no call and needs no job file. What leaves is plain JSON values; `explain_tree.py` and `explain_html.py` draw them.
"""

from typing import Any

import orjson

from pipelines.audit_query import AuditQuery, plain
from pipelines.explain_batches import find_batches, find_waiting, sent_in_file, waiting_reason
from pipelines.explain_facts import tell_cost, tell_model, tell_output_file, tell_reuse, tell_row_hash, tell_template
from pipelines.explain_hidden import hide_columns
from pipelines.explain_open_runs import OpenRuns
from pipelines.explain_parse import tell_parse
from pipelines.explain_payloads import read_retentions, tell_payload
from pipelines.explain_proof import tell_chain, tell_checks, tell_files
from pipelines.explain_timeline import tell_timeline
from pipelines.row_values import RowValues, find_values
from pipelines.sent_prompt import answer_text, read_error, read_prompt
from pipelines.text import one_line
from transforms.records.errors import ConfigError
from transforms.records.row import Outcome
from transforms.storage.objects import read_bytes
from transforms.storage.run_folder import CRASHED, RUNNING, RunFolder, list_runs

_CALL_FACTS = (
    "call_id",
    "run_id",
    "batch_id",
    "call_index",
    "request_id",
    "lane",
    "attempt",
    "status",
    "outcome",
    "http_status",
    "provider_request_id",
    "started_at",
    "waited_ms",
    "latency_ms",
    "provider_name",
    "request_model",
    "response_model",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "reasoning_output_tokens",
    "finish_reasons",
    "cost_usd",
    "cost_source",
    "cost_reason",
)
#: Of an id in a sentence.
_ID_CELLS = 60
_HASHES = {"prompt": "prompt_sha256", "template": "template_sha256", "variables": "variables_sha256"}


def explain_row(output: str, row_id: str, run_id: str | None = None) -> dict[str, Any]:
    """Tell what became of a row.

    Args:
        output: the job's output folder.
        row_id: the row.
        run_id: the run whose outcome to tell; None takes the latest run that has the row.

    Returns:
        JSON values with stable keys: row_id, run_id, run_status, job_name, outcome, source, values, values_from, row_hash,
        failure, pending_reason, waits_in, answer, parse, output_file, request, template, model, prompt, reuse, batches,
        calls, repair, cost_usd, calls_of_unknown_cost, cost, history, timeline, retentions, proof, notes.
        `explain_batches.py` tells the keys of batches and waits_in, `explain_facts.py` those of row_hash,
        output_file, template, model, reuse and cost, `explain_parse.py` of parse, `explain_timeline.py` of timeline,
        `explain_proof.py` of proof {"files", "chain", "checks"}.

    Raises:
        ConfigError: the output, the run or the row is not known; names what is near.
    """
    manifests = {manifest["run_id"]: manifest for manifest in list_runs(output)}
    if not manifests:
        raise ConfigError(f"{output} holds no run; name the `output` folder of a job that has run")
    unsealed = [run for run, manifest in manifests.items() if manifest["status"] == RUNNING]
    with AuditQuery(output, OpenRuns(output, unsealed)) as audit:
        ends = audit.row_ends(row_id)
        end = _chosen(ends, run_id, manifests)
        if end is None:
            raise ConfigError(_unknown(audit, output, row_id, run_id, ends, manifests))
        return _story(audit, output, manifests, ends, end)


def _chosen(
    ends: list[dict[str, Any]], run_id: str | None, manifests: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    known = [end for end in ends if end["run_id"] in manifests and run_id in (None, end["run_id"])]
    return known[-1] if known else None


def _unknown(
    audit: AuditQuery,
    output: str,
    row_id: str,
    run_id: str | None,
    ends: list[dict[str, Any]],
    manifests: dict[str, dict[str, Any]],
) -> str:
    """Say why there is nothing to tell, and what to ask for instead."""
    if run_id is not None and run_id not in manifests:
        return f"{output} has no run {run_id}; its runs are {', '.join(list(manifests)[-5:])}"
    shown = _named(row_id)
    if ends:
        return f"run {run_id} has no outcome of row {shown}; these have: {', '.join(end['run_id'] for end in ends)}"
    near = audit.near(row_id)
    if not near:
        return (
            f"no run of {output} has come to an end, so no row has an outcome yet; run the job again: it takes over "
            "what is in the ledger, and then every row can be explained"
        )
    return f"no run of {output} has a row {shown}; near are: {', '.join(map(_named, near))}"


def _named(row_id: str) -> str:
    """Return an id for a sentence: on one line, and quoted where its ends would not be seen."""
    text = one_line(row_id, _ID_CELLS)
    return text if text == row_id and row_id else repr(text)


def _story(
    audit: AuditQuery,
    output: str,
    manifests: dict[str, dict[str, Any]],
    ends: list[dict[str, Any]],
    end: dict[str, Any],
) -> dict[str, Any]:
    manifest = manifests[end["run_id"]]
    calls = audit.calls_for(end["request_id"]) if end["request_id"] else []
    found = find_values(audit, output, manifest, end)
    batches = find_batches(audit, output, end, calls)
    waits_in = find_waiting(batches, end)
    holder = next((batch for batch in batches if waits_in and batch["batch_id"] == waits_in["batch_id"]), None)
    active = [*(past["run_id"] for past in ends), *(call["run_id"] for call in calls)]
    active += [run["run_id"] for batch in batches for run in batch["runs"]]
    retentions = read_retentions(output, sorted(set(active)))
    told = [_call(call, manifests.get(call["run_id"], manifest), retentions) for call in calls]
    settling = next((call for call in told if call["call_id"] == end["call_id"]), None)
    history = [_past(row, manifests) for row in ends]
    cost = tell_cost(told, end["run_id"])
    story = {
        "row_id": end["row_id"],
        "run_id": end["run_id"],
        "run_status": manifest["status"],
        "job_name": manifest["job_name"],
        "outcome": end["outcome"],
        "source": end["source"],
        "values": found.values,
        "values_from": found.origin,
        "row_hash": tell_row_hash(found),
        "failure": found.failure,
        "pending_reason": _pending_reason(output, end, holder, waits_in),
        "waits_in": waits_in,
        "answer": _answer(found, manifest, end),
        "parse": settling["parse"] if settling else None,
        "output_file": tell_output_file(output, manifest, found),
        "request": _request(audit, end, calls),
        "template": tell_template(found, manifest, calls) if end["request_id"] else None,
        "model": tell_model(settling, told, manifest),
        "prompt": _prompt(calls, told) or _prompt_at_rest(holder, waits_in),
        "reuse": tell_reuse(end, manifests, settling),
        "batches": batches,
        "calls": told,
        "repair": _repair(calls),
        "cost_usd": cost["usd"] if calls else None,
        "calls_of_unknown_cost": cost["unknown_calls"],
        "cost": cost,
        "history": history,
        "timeline": tell_timeline(history, manifests, batches, told, retentions),
        "retentions": retentions,
        "notes": _notes(manifests, {call["run_id"] for call in calls}),
    }
    story["proof"] = {
        "files": tell_files(output, manifests, _files(ends, calls, found)),
        "chain": tell_chain(output, manifests, active),
        "checks": tell_checks(story, calls),
    }
    return story | hide_columns(story, manifest["job"])


def _files(ends: list[dict[str, Any]], calls: list[dict[str, Any]], found: RowValues) -> list[tuple[str, str | None]]:
    paths = [("its values and answer" if found.origin == "enriched" else "the row and why it failed", found.path)]
    paths += [("where it ended", row["filename"]) for row in ends]
    return paths + [("its calls", call.get("filename")) for call in calls]


def _answer(found: RowValues, manifest: dict[str, Any], end: dict[str, Any]) -> dict[str, Any] | None:
    if end["outcome"] != Outcome.ENRICHED:
        return None
    return {"field": manifest["job"]["answer"]["field"], "value": found.answer}


def _pending_reason(
    output: str, end: dict[str, Any], holder: dict[str, Any] | None, waits_in: dict[str, Any] | None
) -> str | None:
    if end["outcome"] != Outcome.PENDING:
        return None
    try:
        reasons = orjson.loads(read_bytes(RunFolder(output, end["run_id"]).summary)).get("pending_reasons")
    except (OSError, orjson.JSONDecodeError):
        reasons = None
    if holder is not None and waits_in is not None:
        return waiting_reason(reasons or [], holder, waits_in)
    return reasons[0]["reason"] if reasons else "the run stopped before its request was answered"


def _request(audit: AuditQuery, end: dict[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any] | None:
    request_id = end["request_id"]
    if request_id is None:
        return None
    main = next((call for call in calls if call["lane"] == "main"), None)
    hashes = {name: main[column] if main else None for name, column in (*_HASHES.items(), ("lookup", "lookup_sha256"))}
    shared = audit.sharers(request_id, end["run_id"])
    return {"request_id": request_id, "rows_sharing_it": shared, "hashes": hashes}


def _prompt(calls: list[dict[str, Any]], told: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not calls:
        return None
    asked = [
        (call["request_json"], one["request_body"])
        for call, one in zip(calls, told, strict=True)
        if call["lane"] == "main"
    ]
    text, body = next((pair for pair in reversed(asked) if pair[0]), asked[-1] if asked else (None, None))
    prompt = read_prompt(text) if text else {"system": None, "turns": [], "note": None}
    return prompt | ({"note": body["note"]} if body and body["note"] else {})


def _prompt_at_rest(holder: dict[str, Any] | None, waits_in: dict[str, Any] | None) -> dict[str, Any] | None:
    if holder is None or waits_in is None:
        return None
    return {"system": None, "turns": [], "note": sent_in_file(waits_in, holder)}


def _call(call: dict[str, Any], manifest: dict[str, Any], retentions: list[dict[str, Any]]) -> dict[str, Any]:
    facts = {name: plain(call[name]) for name in _CALL_FACTS}
    text = answer_text(call["response_json"])
    response = tell_payload(call["response_json"], manifest, retentions)
    is_answer = call["outcome"] == "ok"
    parse = tell_parse(text, manifest["job"]["answer"], is_whole=response["kept"] != "redacted") if is_answer else None
    return {
        **facts,
        "error": read_error(call["error_json"]),
        "text": text,
        "parse": parse,
        "request_body": tell_payload(call["request_json"], manifest, retentions),
        "response_body": response,
    }


def _repair(calls: list[dict[str, Any]]) -> dict[str, Any] | None:
    repairs = [call for call in calls if call["lane"] == "repair"]
    if not repairs:
        return None
    turns = (read_prompt(repairs[-1]["request_json"]) or {}).get("turns", []) if repairs[-1]["request_json"] else []
    asked = turns[-1]["text"] if turns else None
    return {
        "request_id": repairs[-1]["request_id"],
        "why": asked,
        "calls": len(repairs),
        "outcome": repairs[-1]["outcome"],
    }


def _past(row: dict[str, Any], manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    manifest = manifests.get(row["run_id"], {})
    return {
        "run_id": row["run_id"],
        "run_status": manifest.get("status"),
        "started_at": manifest.get("started_at"),
        "outcome": row["outcome"],
        "answered_in_run_id": row["answered_in_run_id"],
    }


def _notes(manifests: dict[str, dict[str, Any]], called: set[str]) -> list[str]:
    notes = []
    for run_id, manifest in manifests.items():
        if manifest["status"] == RUNNING:
            told = (
                "what its ledger has of this row is told here"
                if run_id in called
                else "it has no call for this row yet"
            )
            notes.append(f"run {run_id} is under way, or was killed and is not sealed: {told}; the next run seals it")
        elif manifest["status"] == CRASHED and run_id in called:
            notes.append(f"run {run_id} was killed: the calls it made are told here, but it left no outcomes of rows")
    return notes
