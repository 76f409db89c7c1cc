"""A provider's batch as a branch of a row's tree; draws what `explain_batches.py` found."""

from typing import Any

import orjson
from rich.text import Text
from rich.tree import Tree

from pipelines.text import milliseconds, moment, number, one_line, plural

#: What an exchange is called.
EXCHANGE_NAMES = {
    "upload": "upload of the request file",
    "file_status": "check of the file",
    "create": "create of the batch",
    "status": "status check",
    "listing": "look at the provider's list",
    "download": "download of the results",
    "cancel": "request to cancel",
}
_ENDINGS = {
    "submitted": "left it at the provider",
    "held_back": "left it, not submitted yet",
    "unresolved": "left it in doubt: its create got no reply",
    "interrupted": "was killed meanwhile",
    "not_taken": "gave it up: the provider did not take it",
}


def batch_title(batch: dict[str, Any]) -> str:
    """Return a provider's batch in words."""
    line = "" if batch["line"] is None else f", line {number(batch['line'])} of its request file"
    return f"{batch['batch_id']}  {batch['mode']}, {plural(batch['request_count'], 'request')}{line}, {batch['status']}"


def draw_batch_life(branch: Tree, batch: dict[str, Any], width: int) -> None:
    """Draw what is known of the batch itself: names, the runs that had to do with it, and its exchanges."""
    for label, words in _names(batch):
        branch.add(Text.assemble((f"{label}  ", "dim"), one_line(words, width)))
    for run in batch["runs"]:
        branch.add(Text.assemble((f"run {run['run_id']}  ", "dim"), run_words(run)))
    for exchange in batch["exchanges"]:
        _draw_exchange(branch, exchange, width)


def _names(batch: dict[str, Any]) -> list[tuple[str, str]]:
    at = f"{batch['provider_name']} {batch['request_model']}"
    named = [("provider", f"{at}, id {batch['provider_batch_id']}" if batch["provider_batch_id"] else at)]
    files = batch_files(batch)
    named += [("files", ", ".join(files))] if files else []
    named += [("custom_id", batch["custom_id"])] if batch["custom_id"] else []
    file = batch["request_file"]
    return [*named, ("request file", file) if file else ("key", f"{batch['batch_key']} (its request file is gone)")]


def batch_files(batch: dict[str, Any]) -> list[str]:
    """Return the provider's files of a batch, each with what it holds."""
    parts = {"input_file_id": "requests", "output_file_id": "results", "error_file_id": "errors"}
    return [f"{words} {batch[name]}" for name, words in parts.items() if batch[name]]


def run_words(run: dict[str, Any]) -> str:
    """Say what a run did with a batch."""
    if run["status"] in _ENDINGS:
        return _ENDINGS[run["status"]]
    counts = f"{number(run['succeeded'])} answered, {number(run['failed'])} failed"
    return f"collected it, {run['status']}: {counts}"


def _draw_exchange(branch: Tree, exchange: dict[str, Any], width: int) -> None:
    first, last, count = exchange["first_call_index"], exchange["last_call_index"], exchange["count"]
    name = EXCHANGE_NAMES.get(exchange["what"], exchange["what"])
    words = (
        name
        if count == 1
        else plural(count, name)
        if name != EXCHANGE_NAMES["listing"]
        else f"{count} looks at the list"
    )
    head = Text(f"call {first}  " if first == last else f"calls {first} to {last}  ")
    head.append(f"{words}: ")
    is_bad = exchange["failed"] == count
    head.append(_outcome(exchange), style="red" if is_bad else "green")
    head.append(f"  {milliseconds(exchange['latency_ms'])}" + (" in all" if count > 1 else ""))
    node = branch.add(head)
    node.add(Text(_times(exchange), style="dim"))
    if exchange["error"]:
        node.add(Text(one_line(_message(exchange["error"]), 2 * width), "red"))


def _outcome(exchange: dict[str, Any]) -> str:
    status = "no reply" if exchange["http_status"] is None else f"HTTP {exchange['http_status']}"
    if exchange["count"] == 1:
        return status if not exchange["failed"] else f"{exchange['outcome']}, {status}"
    return f"the last {status}" + (f", {number(exchange['failed'])} failed" if exchange["failed"] else "")


def _times(exchange: dict[str, Any]) -> str:
    runs = [f"run {run_id}" for run_id in exchange["run_ids"]]
    if exchange["count"] == 1:
        return ", ".join([moment(exchange["first_at"]), *runs, *_id(exchange)])
    whole = f"first {moment(exchange['first_at'])}, last {moment(exchange['last_at'])}"
    return f"{whole}, {runs[0] if len(runs) == 1 else plural(len(runs), 'run')}"


def _id(exchange: dict[str, Any]) -> list[str]:
    return [f"id {exchange['provider_request_id']}"] if exchange["provider_request_id"] else []


def _message(error: dict[str, Any]) -> str:
    return str(error.get("message") or orjson.dumps(error).decode())
