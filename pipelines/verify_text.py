"""What `rowbeam verify` found, on the terminal; the findings themselves go to standard error, a line each."""

from typing import Any

from rich.console import Console
from rich.text import Text

from pipelines.text import duration, plural

#: Checks by what people ask: (what holds, the names of its checks).
_GROUPS = (
    ("the chain of runs", ("manifests", "chain", "latest", "expect")),
    ("files and their hashes", ("files", "unlisted", "tables", "rows.files")),
    ("keys and references", ("runs.", "rows.", "calls.", "batches.", "batch_members")),
    ("conservation", ("conservation", "dead_letters", "enriched", "kept")),
    ("calls, tokens and costs", ("costs",)),
    ("the ledger", ("ledger.",)),
)


def draw_verified(facts: dict[str, Any], console: Console) -> None:
    """Draw the verdict: a line for each kind of check, the findings counted, and the head to note."""
    console.print(Text.assemble(("Output ", "bold"), (facts["output"], "bold cyan")))
    console.print()
    for title, names in _GROUPS:
        checks = [check for check in facts["checks"] if _is_of(check["name"], names)]
        if checks:
            console.print(_line(title, checks))
    console.print()
    console.print(_verdict(facts))
    for run_id in facts["runs"]["left_out"]:
        console.print(
            Text(f"Run {run_id} is under way, or was killed and waits for the next run: it was left out.", "dim")
        )
    head = facts["head"]
    if head is not None:
        console.print(Text.assemble(("head ", "bold"), head["sha256"], (f"  (run {head['run_id']})", "dim")))
        if (noted := facts["noted"]) is not None:
            since = plural(noted["after"], "link") if noted["after"] else "nothing"
            console.print(Text(f"The hash you noted is of {noted['name']}; {since} came after it."))
        advice = (
            "Note the head where whoever writes to this output can't; verify --expect HEAD then shows any rewriting."
        )
        console.print(Text(advice, "dim"))


def _is_of(name: str, group: tuple[str, ...]) -> bool:
    if name == "rows.files":
        return "rows.files" in group
    return any(name == one or (one.endswith(".") and name.startswith(one)) for one in group)


def _line(title: str, checks: list[dict[str, Any]]) -> Text:
    count = sum(check["count"] for check in checks)
    mark = ("ok     ", "green") if count == 0 else ("BROKEN ", "bold red")
    broken = ", ".join(check["name"] for check in checks if not check["ok"])
    tail = f"  {plural(len(checks), 'check')}" if count == 0 else f"  {plural(count, 'finding')}: {broken}"
    return Text.assemble(mark, (f"{title:<26}", ""), (tail, "dim" if count == 0 else "red"))


def _verdict(facts: dict[str, Any]) -> Text:
    runs = plural(len(facts["runs"]["checked"]), "run")
    took = duration(facts["duration_s"])
    if facts["ok"]:
        return Text.assemble(("All holds", "bold green"), f" in {runs} ({took}).")
    return Text.assemble((plural(facts["findings"], "finding"), "bold red"), f" in {runs} ({took}):")
