"""The plain branches of a row's tree: template, file, cost, hashes, proof, runs; `explain_tree.py` draws the rest."""

from collections import Counter
from typing import Any

from rich.text import Text
from rich.tree import Tree

from pipelines.text import money, number, one_line, plural

OUTCOME_WORDS = {"enriched": "enriched", "dead_lettered": "dead letter", "pending": "pending"}
#: What the checks of files say, for people.
FILE_CHECKS = {
    "same": "has the hash that its manifest lists",
    "same_size": "has the size that its manifest lists; its hash was not taken again",
    "rewritten": "was rewritten by retention, whose record has its hash",
    "changed": "is NOT as its manifest lists it",
    "unlisted": "is in no manifest yet",
}
_HASH_CHARS = 16


def label_line(label: str, value: str = "", style: str = "") -> Text:
    """Return a branch's line: a bold label, and its value."""
    text = Text(label, style="bold")
    if value:
        text.append("  ")
        text.append(value, style=style or "not bold")
    return text


def draw_template(tree: Tree, story: dict[str, Any], width: int) -> None:
    """Draw which version of the templates made the prompt, and which model was asked."""
    template = story["template"]
    if template is None:
        return
    version = f"version {template['sha256'][:_HASH_CHARS]}, " if template["sha256"] else ""
    branch = tree.add(label_line("Template", one_line(f"{version}from {template['source']}", width)))
    if template["lookup_source"]:
        digest = template["lookup_sha256"]
        version = f", version {digest[:_HASH_CHARS]}" if digest else ""
        branch.add(Text(one_line(f"lookup {template['lookup_source']}{version}", width), style="dim"))
    model = story["model"]
    answered = f", answered by {model['answered']}" if model["answered"] else ""
    tree.add(label_line("Model", f"{model['provider']} {model['asked']}{answered}"))


def draw_reuse(tree: Tree, story: dict[str, Any]) -> None:
    """Draw why an answer was not asked for again."""
    reuse = story["reuse"]
    if reuse is None:
        return
    branch = tree.add(label_line("Reused", f"from run {reuse['run_id']}: {reuse['reason']}"))
    if reuse["same_job"] is False:
        branch.add(Text("the job was changed in between, in nothing that changes this request", style="dim"))


def draw_file(tree: Tree, story: dict[str, Any], width: int) -> None:
    """Draw where the row was written."""
    file = story["output_file"]
    if file is None:
        return
    place = "" if file["row"] is None else f", {'line' if file['is_line'] else 'row'} {number(file['row'])}"
    branch = tree.add(label_line("Written to", one_line(f"{file['path']}{place}", width)))
    if file["sha256"]:
        branch.add(Text(f"sha256 {file['sha256']}", style="dim"))


def draw_cost(tree: Tree, story: dict[str, Any]) -> None:
    """Draw what the row's calls cost, by run where there are several."""
    calls, cost = story["calls"], story["cost"]
    if not calls:
        waits = "nothing yet: a batch is billed by its answers"
        tree.add(label_line("Cost", waits if story["waits_in"] else "$0: no call was made"))
        return
    branch = tree.add(label_line("Cost", cost_words(story)))
    for reason in cost["reasons"]:
        branch.add(Text(f"unknown for {plural(reason['calls'], 'call')}: {reason['reason']}", style="yellow"))
    if len(cost["by_run"]) > 1:
        for one in cost["by_run"]:
            branch.add(
                Text(f"run {one['run_id']}  {money(one['usd'])} for {plural(one['calls'], 'call')}", style="dim")
            )


def cost_words(story: dict[str, Any]) -> str:
    """Say what the row's calls cost, and which run paid."""
    calls, cost = story["calls"], story["cost"]
    words = f"{money(cost['usd'])} for {plural(len(calls), 'call')}"
    if not cost["in_this_run"]:
        words += f", paid by {'a later' if calls[0]['run_id'] > story['run_id'] else 'an earlier'} run"
    if cost["unknown_calls"] and cost["usd"] is not None:
        words += f" at least; {plural(cost['unknown_calls'], 'call')} of unknown cost"
    shared = (story["request"] or {}).get("rows_sharing_it", 1)
    return f"{words}, for {plural(shared, 'row')} together" if shared > 1 else words


def draw_hashes(tree: Tree, story: dict[str, Any]) -> None:
    """Draw the beginnings of the hashes; --json has them whole."""
    hashes = {"row": story["row_hash"]["sha256"], **(story["request"] or {}).get("hashes", {})}
    shown = [f"{name} {digest[:_HASH_CHARS]}" for name, digest in hashes.items() if digest]
    if shown:
        tree.add(label_line("Hashes", ", ".join(shown)))


def draw_proof(tree: Tree, story: dict[str, Any], width: int) -> None:
    """Draw what the hashes prove, and what does not fit."""
    proof = story["proof"]
    words = proof_words(proof)
    branch = tree.add(label_line("Proof", words))
    for check in proof["checks"]:
        if check["ok"] is not True:
            style = "red" if check["ok"] is False else "dim"
            state = "does NOT hold" if check["ok"] is False else check["detail"]
            branch.add(Text(one_line(f"{check['what']}: {state}", 2 * width), style))
    for file in proof["files"]:
        if file["check"] in ("changed", "unlisted"):
            branch.add(Text(one_line(f"{file['path']} {FILE_CHECKS[file['check']]}", 2 * width), "red"))
    for link in proof["chain"]:
        if link["link"] in ("changed", "gone"):
            words_of = {"changed": "was changed since", "gone": "is gone"}[link["link"]]
            branch.add(Text(f"run {link['previous']}, which run {link['run_id']} follows, {words_of}", "red"))


def proof_words(proof: dict[str, Any]) -> str:
    """Say in one line how many checks hold and how many files are as listed."""
    counts = Counter(check["ok"] for check in proof["checks"])
    states = {
        True: ("holds", "hold"),
        False: ("does NOT hold", "do NOT hold"),
        None: ("can't be told", "can't be told"),
    }
    words = [
        f"{plural(counts[state], 'check')} {one if counts[state] == 1 else more}"
        for state, (one, more) in states.items()
        if counts[state]
    ]
    fine = sum(file["check"] in ("same", "same_size", "rewritten") for file in proof["files"])
    return ", ".join([*words, f"{fine} of {plural(len(proof['files']), 'file')} as the manifests list them"])


def draw_history(tree: Tree, story: dict[str, Any]) -> None:
    """Draw what each run made of the row."""
    history = story["history"]
    branch = tree.add(label_line("Runs", plural(len(history), "run") + " with this row"))
    for past in history:
        words = f"{past['run_id']}  {OUTCOME_WORDS.get(past['outcome'], past['outcome'])}"
        if past["answered_in_run_id"] and past["answered_in_run_id"] != past["run_id"]:
            words += f", answered in {past['answered_in_run_id']}"
        branch.add(Text(words, style="" if past["run_id"] == story["run_id"] else "dim"))
