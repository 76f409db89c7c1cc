"""The tables of a row's page: pairs of a name and what there is to say, from its story."""

from typing import Any

import orjson

from pipelines.batch_words import MODE
from pipelines.explain_batch_tree import EXCHANGE_NAMES, batch_files, run_words
from pipelines.explain_tree_facts import FILE_CHECKS
from pipelines.text import duration, milliseconds, moment, money, number, plural

Facts = list[tuple[str, str | None]]

_LANES = {"main": "Question", "repair": "Repair"}
_LINKS = {
    "same": ("holds", "its hash is the one named"),
    "changed": ("BROKEN", "it was changed after its hash was taken"),
    "gone": ("BROKEN", "it is gone"),
    "first": ("the first run", None),
    "open": ("open", "the run has not ended, or was killed and is not sealed"),
}


def answer_facts(story: dict[str, Any]) -> Facts:
    """Tell where the row was written, and why a reused answer was reused."""
    file, reuse = story["output_file"], story["reuse"]
    place = None
    if file:
        row = "" if file["row"] is None else f", {'line' if file['is_line'] else 'row'} {number(file['row'])}"
        place = f"{file['path']}{row}"
    again = f"from run {reuse['run_id']}: {reuse['reason']}" if reuse else None
    same = {True: "unchanged since", False: "changed since, in nothing that changes this request", None: None}
    return [
        ("written to", place),
        ("reused", again),
        ("the job was", same[reuse["same_job"]] if reuse else None),
        ("asked at", moment(reuse["asked_at"]) if reuse and reuse["asked_at"] else None),
    ]


def row_facts(story: dict[str, Any]) -> Facts:
    """Tell where the row comes from."""
    digest = story["row_hash"]
    return [("source", story["source"]), ("content sha256", digest["sha256"] or f"not known: {digest['note']}")]


def prompt_facts(story: dict[str, Any]) -> Facts:
    """Tell which request the row became, by which template, for which model."""
    request, template, model = story["request"], story["template"], story["model"]
    if request is None:
        return []
    lookup = template["lookup_source"] if template else None
    params = {name: value for name, value in model["params"].items() if value not in (None, {}, [])}
    return [
        ("request", request["request_id"]),
        (
            "shared by",
            plural(request["rows_sharing_it"], "row") + " of this run" if request["rows_sharing_it"] > 1 else None,
        ),
        ("template", f"{template['source']}, version {template['sha256'] or 'not on record'}" if template else None),
        ("lookup", f"{lookup}, version {template['lookup_sha256'] or 'not on record'}" if lookup else None),
        ("model asked", f"{model['provider']} {model['asked']}"),
        ("model answering", model["answered"]),
        ("parameters", ", ".join(f"{name} {value}" for name, value in params.items()) or None),
    ]


def hash_facts(story: dict[str, Any]) -> Facts:
    """Tell every hash of the row's way."""
    request, template = story["request"] or {}, story["template"] or {}
    facts = [("row content", story["row_hash"]["sha256"]), ("request", request.get("request_id"))]
    facts += list(request.get("hashes", {}).items())
    facts.append(("job", template.get("job_sha256")))
    for call in story["calls"]:
        for name in ("request_body", "response_body"):
            if call[name]["sha256"]:
                facts.append((f"{name.replace('_', ' ')}, call {call['call_index']}", call[name]["sha256"]))
    return facts


def batch_sections(story: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each batch with its facts, its exchanges, and this row's calls in it."""
    return [_batch(batch, story) for batch in story["batches"]]


def _batch(batch: dict[str, Any], story: dict[str, Any]) -> dict[str, Any]:
    is_provider = batch["mode"] == MODE
    calls = [call for call in story["calls"] if call["batch_id"] == batch["batch_id"]]
    return {
        "is_provider": is_provider,
        "title": batch["provider_batch_id"] or batch["batch_id"],
        "facts": _batch_facts(batch, is_provider=is_provider),
        "exchanges": [_exchange(one) for one in batch["exchanges"]],
        "calls": [_call(call, by_batch=is_provider) for call in calls],
    }


def _batch_facts(batch: dict[str, Any], *, is_provider: bool) -> Facts:
    ordinal, line = batch["ordinal"], batch["line"]
    place = f"{number(ordinal + 1)} of {plural(batch['request_count'], 'request')}" if ordinal is not None else None
    runs = "; ".join(f"{one['run_id']} {run_words(one)}" for one in batch["runs"]) if is_provider else batch["run_id"]
    file = batch["request_file"]
    at_line = f", line {number(line)}" if line is not None else ""
    return [
        ("batch", batch["batch_id"]),
        ("state", batch["status"].replace("_", " ")),
        ("place in it", place),
        ("custom_id", batch["custom_id"]),
        ("mode", batch["mode"].replace("_", " ")),
        ("provider's files", ", ".join(batch_files(batch)) or None),
        ("request file", f"{file}{at_line}" if file else None),
        ("run" if not is_provider else "runs", runs),
    ]


def _exchange(one: dict[str, Any]) -> dict[str, Any]:
    first, last = one["first_call_index"], one["last_call_index"]
    name = EXCHANGE_NAMES.get(one["what"], one["what"])
    failed = f", {number(one['failed'])} failed" if one["failed"] and one["count"] > 1 else ""
    status = "no reply" if one["http_status"] is None else f"HTTP {one['http_status']}"
    error = one["error"]
    return {
        "calls": str(first) if first == last else f"{first} to {last}",
        "what": name if one["count"] == 1 else f"{name}, {number(one['count'])} times",
        "when": moment(one["first_at"]) if one["count"] == 1 else f"{moment(one['first_at'])} on",
        "result": f"{status}{failed}",
        "is_bad": one["failed"] == one["count"],
        "took": milliseconds(one["latency_ms"]),
        "error": str(error.get("message") or orjson.dumps(error).decode()) if error else None,
    }


def _call(call: dict[str, Any], *, by_batch: bool) -> dict[str, Any]:
    error = call["error"]
    return {
        "title": f"{_LANES.get(call['lane'], call['lane'])}, attempt {call['attempt']}:",
        "outcome": call["outcome"],
        "tone": "good" if call["outcome"] == "ok" else "bad",
        "facts": _call_facts(call, by_batch=by_batch),
        "error_text": str(error.get("message") or orjson.dumps(error).decode()) if error else None,
        "text": call["text"],
        "response_note": call["response_body"]["note"]
        if call["response_body"]["kept"] != "none" or not error
        else None,
    }


def _call_facts(call: dict[str, Any], *, by_batch: bool) -> Facts:
    took = f"{duration(call['latency_ms'] / 1000)} in the batch" if by_batch else milliseconds(call["latency_ms"])
    status = "no reply" if call["http_status"] is None else f"HTTP {call['http_status']}"
    source = call["cost_source"].replace("_", " ")
    cost = (
        f"unknown: {call['cost_reason'] or source}"
        if call["cost_usd"] is None
        else f"{money(call['cost_usd'])} ({source})"
    )
    parse = call["parse"]
    return [
        ("call", f"{call['call_id']}, in run {call['run_id']}"),
        ("sent", moment(call["started_at"])),
        ("took", took + (f", held back {milliseconds(call['waited_ms'])} before" if call["waited_ms"] >= 1 else "")),
        ("response", status + (f", id {call['provider_request_id']}" if call["provider_request_id"] else "")),
        ("answered by", call["response_model"]),
        ("tokens", _tokens(call)),
        ("finished", ", ".join(call["finish_reasons"]) or None),
        ("cost", cost),
        ("read", f"the answer {parse['words']}" if parse else None),
    ]


def _tokens(call: dict[str, Any]) -> str | None:
    if call["input_tokens"] is None and call["output_tokens"] is None:
        return None
    names = {
        "cache_read_input_tokens": "read from cache",
        "cache_write_input_tokens": "written to cache",
        "reasoning_output_tokens": "reasoning",
    }
    more = [f"{number(call[name])} {words}" for name, words in names.items() if call[name]]
    return ", ".join([f"{number(call['input_tokens'])} in", f"{number(call['output_tokens'])} out", *more])


def file_rows(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the files with the state in words."""
    return [
        {**file, "words": FILE_CHECKS[file["check"]], "tone": "bad" if file["check"] in ("changed", "unlisted") else ""}
        for file in files
    ]


def link_rows(chain: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the links with their state in words."""
    return [{**one, "words": _link_words(one)} for one in chain]


def _link_words(one: dict[str, Any]) -> str:
    state, why = _LINKS[one["link"]]
    before = f" ({one['previous']})" if one["previous"] else ""
    return f"{state}{before}{': ' + why if why else ''}"
