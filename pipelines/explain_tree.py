"""A row's story as a tree on the terminal; draws what `explain.explain_row` found."""

from typing import Any

import orjson
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pipelines.advice import advice
from pipelines.batch_words import MODE
from pipelines.explain_batch_tree import batch_title, draw_batch_life
from pipelines.explain_tree_facts import (
    OUTCOME_WORDS,
    draw_cost,
    draw_file,
    draw_hashes,
    draw_history,
    draw_proof,
    draw_reuse,
    draw_template,
    label_line,
)
from pipelines.text import duration, milliseconds, moment, money, number, one_line, plural, printable, value_text

_OUTCOME_STYLES = {"enriched": "bold green", "dead_lettered": "bold red", "pending": "bold yellow"}
_MAX_PROMPT_LINES = 40
_LANES = {"main": "question", "repair": "repair"}


def draw_story(story: dict[str, Any], console: Console) -> None:
    """Draw the whole story."""
    width = max(40, console.width - 8)
    head = Text("Row ", style="bold")
    head.append(one_line(story["row_id"], width), style="bold cyan")
    head.append("  ")
    head.append(OUTCOME_WORDS.get(story["outcome"], story["outcome"]), style=_OUTCOME_STYLES.get(story["outcome"], ""))
    tree = Tree(head, guide_style="dim")
    _draw_source(tree, story, width)
    _draw_prompt(tree, story, width)
    draw_template(tree, story, width)
    draw_reuse(tree, story)
    _draw_calls(tree, story, width)
    _draw_end(tree, story, width)
    draw_file(tree, story, width)
    draw_cost(tree, story)
    draw_hashes(tree, story)
    draw_proof(tree, story, width)
    draw_history(tree, story)
    console.print(tree)
    for note in story["notes"]:
        console.print(Text(f"Note: {note}.", style="dim"))


def _draw_source(tree: Tree, story: dict[str, Any], width: int) -> None:
    branch = tree.add(label_line("Source", story["source"]))
    values = story["values"]
    if isinstance(values, dict):
        name_width = min(24, max((len(name) for name in values), default=0))
        for name, value in values.items():
            text = Text(one_line(name, 24).ljust(name_width), style="dim")
            text.append("  " + one_line(value_text(value), width - name_width - 2), style="not dim")
            branch.add(text)
    elif isinstance(values, str):
        branch.add(one_line(values, width))
    else:
        branch.add(Text("its values are in the source; the run wrote none", style="dim"))


def _draw_prompt(tree: Tree, story: dict[str, Any], width: int) -> None:
    prompt, request = story["prompt"], story["request"]
    if request is None:
        tree.add(label_line("Prompt", "none: the row never became a request", "dim"))
        return
    shared = request["rows_sharing_it"]
    with_others = f", shared by {plural(shared, 'row')} of this run" if shared > 1 else ""
    branch = tree.add(label_line("Prompt", f"request {request['request_id'][:16]}{with_others}"))
    if prompt is None:
        branch.add(Text("no call was made, so nothing was sent", style="dim"))
        return
    if prompt["note"]:
        branch.add(Text(prompt["note"], style="dim"))
    if prompt["system"]:
        _draw_text(branch, "system", prompt["system"], width)
    for turn in prompt["turns"]:
        _draw_text(branch, turn["role"], turn["text"], width)


def _draw_text(branch: Tree, label: str, text: str, width: int) -> None:
    lines = printable(text).splitlines() or [""]
    shown = lines[:_MAX_PROMPT_LINES]
    if len(lines) > len(shown):
        shown.append(f"... and {plural(len(lines) - len(shown), 'more line')} (all of it with --json)")
    if len(shown) == 1 and len(shown[0]) + len(label) + 2 <= width:
        branch.add(Text.assemble((label, "dim"), "  ", shown[0]))
        return
    inner = branch.add(Text(label, style="dim"))
    inner.add(Text("\n".join(shown)))


def _draw_calls(tree: Tree, story: dict[str, Any], width: int) -> None:
    """Draw the batches of the first question, then the repair with its own."""
    repairs = {call["batch_id"] for call in story["calls"] if call["lane"] == "repair"}
    for batch in story["batches"]:
        if batch["batch_id"] not in repairs:
            _draw_batch(tree, batch, story, width)
    repair = story["repair"]
    if repair is None:
        return
    branch = tree.add(
        label_line("Repair", f"the answer was not what the job asked for; asked once more: {repair['outcome']}")
    )
    if repair["why"]:
        branch.add(Text.assemble(("told  ", "dim"), one_line(repair["why"], 3 * width)))
    for batch in story["batches"]:
        if batch["batch_id"] in repairs:
            _draw_batch(branch, batch, story, width)


def _draw_batch(tree: Tree, batch: dict[str, Any], story: dict[str, Any], width: int) -> None:
    if batch["mode"] == MODE:
        branch = tree.add(label_line("Batch", batch_title(batch)))
        draw_batch_life(branch, batch, width)
    else:
        branch = tree.add(label_line(_pool_label(batch, story), _pool_title(batch)))
        if {call["run_id"] for call in story["calls"]} != {story["run_id"]}:
            branch.add(Text(f"in run {batch['run_id']}", style="dim"))
    for call in story["calls"]:
        if call["batch_id"] == batch["batch_id"]:
            _draw_call(branch, call, width, by_batch=batch["mode"] == MODE)


def _pool_label(batch: dict[str, Any], story: dict[str, Any]) -> str:
    main = {call["batch_id"] for call in story["calls"] if call["lane"] == "main"}
    went_by_batch = any(one["mode"] == MODE for one in story["batches"])
    return "Again in real time" if went_by_batch and batch["batch_id"] in main else "Batch"


def _pool_title(batch: dict[str, Any]) -> str:
    place = "" if batch["ordinal"] is None else f", place {number(batch['ordinal'] + 1)}"
    many = plural(batch["request_count"], "request")
    return f"{batch['batch_id']}  {batch['mode']}, {many}{place}, {batch['status']}"


def _draw_call(branch: Tree, call: dict[str, Any], width: int, *, by_batch: bool) -> None:
    good = call["outcome"] == "ok"
    head = Text(f"call {call['call_index']}  ")
    head.append(f"{_LANES.get(call['lane'], call['lane'])}, attempt {call['attempt']}: ")
    head.append(call["outcome"], style="green" if good else "red")
    if call["http_status"] is not None:
        head.append(f"  HTTP {call['http_status']}")
    took = f"{duration(call['latency_ms'] / 1000)} in the batch" if by_batch else milliseconds(call["latency_ms"])
    head.append(f"  {took}")
    if call["waited_ms"] >= 1:
        head.append(f" after waiting {milliseconds(call['waited_ms'])}")
    node = branch.add(head)
    node.add(Text(_times_and_ids(call), style="dim"))
    if call["error"]:
        node.add(Text(one_line(call["error"].get("message") or orjson.dumps(call["error"]).decode(), 2 * width), "red"))
    if call["input_tokens"] is not None or call["output_tokens"] is not None:
        node.add(Text(_usage(call), style="dim"))
    if call["text"] is not None:
        node.add(Text.assemble(("said  ", "dim"), one_line(call["text"], 2 * width)))


def _times_and_ids(call: dict[str, Any]) -> str:
    model = call["request_model"]
    if call["response_model"] and call["response_model"] != model:
        model = f"{model} (answered by {call['response_model']})"
    parts = [moment(call["started_at"]), f"{call['provider_name']} {model}"]
    if call["provider_request_id"]:
        parts.append(f"id {call['provider_request_id']}")
    return ", ".join(parts)


def _usage(call: dict[str, Any]) -> str:
    parts = [f"{number(call['input_tokens'])} tokens in", f"{number(call['output_tokens'])} out"]
    named = {
        "cache_read_input_tokens": "read from cache",
        "cache_write_input_tokens": "written to cache",
        "reasoning_output_tokens": "reasoning",
    }
    parts += [f"{number(call[key])} {words}" for key, words in named.items() if call[key]]
    if call["finish_reasons"]:
        parts.append(f"finished: {', '.join(call['finish_reasons'])}")
    source = call["cost_source"].replace("_", " ")
    parts.append(
        f"{money(call['cost_usd'])} ({source})" if call["cost_usd"] else f"cost {call['cost_reason'] or source}"
    )
    return ", ".join(parts)


def _draw_end(tree: Tree, story: dict[str, Any], width: int) -> None:
    if story["outcome"] == "enriched":
        answer = story["answer"]
        said = f"{answer['field']} = {one_line(value_text(answer['value']), 2 * width)}"
        branch = tree.add(label_line("Answer", said, "green"))
        if story["parse"]:
            branch.add(Text(f"read: the answer {story['parse']['words']}", style="dim"))
    elif story["failure"]:
        failure = story["failure"]
        branch = tree.add(label_line("Failed", f"at {failure['stage']}: {failure['kind']}", "red"))
        branch.add(one_line(failure["reason"], 4 * width))
        tries = plural(failure["attempts"], "attempt") if failure["attempts"] else "No call was made"
        retry = "another run may succeed" if failure["retryable"] else "another run gives the same"
        branch.add(Text(f"{tries}; {retry}. What to do: {advice(failure['kind'])}.", style="dim"))
    elif story["pending_reason"]:
        branch = tree.add(label_line("Pending", one_line(story["pending_reason"], 2 * width), "yellow"))
        branch.add(Text(_next_for_pending(story["waits_in"]), style="dim"))


def _next_for_pending(waits_in: dict[str, Any] | None) -> str:
    if waits_in is None:
        return "Run the job again: it takes this row up."
    batch = waits_in["provider_batch_id"] or waits_in["batch_id"]
    if waits_in["collected_in_run_id"]:
        return f"It waited in {batch}, which run {waits_in['collected_in_run_id']} closed."
    if waits_in["status"] == "held_back":
        return f"{batch} is not submitted yet. Run the job again: it takes this row up."
    since = f" since {moment(waits_in['submitted_at'])}" if waits_in["submitted_at"] else ""
    return f"It waits in {batch} at {waits_in['provider_name']}{since}. Run the job again: it collects what is done."
