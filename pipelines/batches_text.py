"""Provider batches on the terminal; draws what `batches`, `batches_cancel` and `batches_resolve` found."""

import shlex
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.text import moment, number, one_line, plural

_STYLES = {"collected": "green", "submitted": "cyan", "ended": "yellow", "staged": "yellow", "in doubt": "bold red"}
_CLOSED = ("collected", "given up")
#: Closed batches shown, the newest; of the others all are.
_SHOWN_CLOSED = 20
#: Terminals below this width don't get the column of times and runs; the submission is told beneath the ids.
_WIDE = 105
_MAX_REASON = 300


def draw_batches(facts: dict[str, Any], console: Console) -> None:
    """Draw all batches, and what there is to say or to do about some."""
    console.print(
        Text.assemble(("Output ", "bold"), (facts["output"], "bold cyan"), f"  {facts['job'] or 'no run yet'}")
    )
    console.print()
    if not facts["batches"]:
        console.print(Text("No batch was ever made for a provider's batch API."))
        return
    shown = _shown(facts["batches"])
    console.print(_table(shown, console.width))
    console.print()
    parts = ", ".join(f"{number(count)} {phase}" for phase, count in facts["phases"].items())
    console.print(Text(f"{plural(len(facts['batches']), 'batch', 'batches')}: {parts}."))
    hidden = len(facts["batches"]) - len(shown)
    if hidden:
        console.print(Text(f"{plural(hidden, 'older batch', 'older batches')} not shown (all with --json).", "dim"))
    for batch in shown:
        for note in _notes(facts["output"], batch):
            console.print()
            console.print(Text.assemble((f"{batch['short_key']}  ", "bold"), note))
    if any(batch["phase"] in ("submitted", "ended") for batch in shown):
        console.print()
        console.print(Text("Run the job to collect what has ended; --cancel KEY stops one that has not."))


def draw_cancelled(facts: dict[str, Any], console: Console) -> None:
    """Draw what became of each batch that was to be cancelled; failures are told on standard error."""
    for batch in facts["cancelled"]:
        if batch["outcome"] != "failed":
            console.print(Text.assemble((f"{batch['short_key']}  ", "bold"), batch["says"]))
            if batch["next"]:
                console.print(Text(batch["next"]))


def draw_resolved(facts: dict[str, Any], console: Console) -> None:
    """Draw what is now on record of a batch that was in doubt, and what follows."""
    console.print(Text.assemble((f"{facts['short_key']}  ", "bold"), facts["says"]))
    console.print(Text(facts["next"]))


def _shown(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    closed = [batch["key"] for batch in batches if batch["phase"] in _CLOSED]
    hidden = set(closed[:-_SHOWN_CLOSED])
    return [batch for batch in batches if batch["key"] not in hidden]


def _table(batches: list[dict[str, Any]], width: int) -> Table:
    is_wide = width >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("key", no_wrap=True)
    table.add_column("batch, and the provider's id", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("requests", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("submitted, by run", no_wrap=True)
    for batch in batches:
        ids = _ids(batch) if is_wide else _ids(batch).append(_sent(batch))
        cells = [Text(batch["short_key"]), ids, _state(batch), _counts(batch)]
        table.add_row(*cells, *([_times(batch)] if is_wide else []))
    return table


def _ids(batch: dict[str, Any]) -> Text:
    named = batch["provider_batch_id"]
    return Text.assemble(f"{batch['batch_id']}  {batch['provider']}", ("" if named is None else f"\n{named}", "dim"))


def _sent(batch: dict[str, Any]) -> Text:
    """Return when and by which run it was submitted, as a line of its own for narrow terminals."""
    if batch["submitted_at"] is None:
        return Text("")
    return Text(f"\n{moment(batch['submitted_at'])[:16]}  {batch['submitted_by']}", style="dim")


def _state(batch: dict[str, Any]) -> Text:
    text = Text(batch["phase"], style=_STYLES.get(batch["phase"], "yellow"))
    status = batch["status"] or ("cancelling" if batch["cancel_asked_at"] else None)
    return text.append(f"\n{status}", style="not bold dim default") if status else text


def _counts(batch: dict[str, Any]) -> Text:
    lines = [number(batch["requests"])]
    if batch["succeeded"] is not None:
        lines.append(f"{number(batch['succeeded'])} ok")
        lines += [f"{number(batch[name])} {name}" for name in ("failed", "missing") if batch[name]]
    return Text("\n".join(lines))


def _times(batch: dict[str, Any]) -> Text:
    if batch["submitted_at"] is None:
        return Text("-")
    lines = [moment(batch["submitted_at"]).removesuffix(" UTC"), str(batch["submitted_by"])]
    if batch["ended_at"]:
        lines.append(f"ended {moment(batch['ended_at'])[:16]}")
    return Text("\n".join(lines))


def _notes(output: str, batch: dict[str, Any]) -> list[str]:
    notes = []
    if batch["phase"] == "in doubt":
        notes.append(_doubt(output, batch["short_key"], batch["provider"]))
    if batch["phase"] == "staged" and batch["not_taken"]:
        reason = one_line(batch["not_taken"][-1]["reason"], _MAX_REASON)
        notes.append(f"Not submitted: {reason.rstrip('.')}. To do: {batch['to_do']}.")
    if batch["phase"] == "submitted" and batch["proven"] is False:
        notes.append(f"Found at {batch['provider']} by its time and size; the ids in its results will prove it ours.")
    if batch["phase"] == "submitted" and batch["cancel_asked_at"]:
        notes.append(f"Cancelling was asked for on {moment(batch['cancel_asked_at'])} ({batch['cancel_why']}).")
    return notes


def _doubt(output: str, short_key: str, provider: str) -> str:
    command = f"rowbeam batches {shlex.quote(output)} --resolve {short_key} --as"
    return (
        f"In doubt: its create got no reply, so nobody knows whether {provider} has it. Run the job again: it looks "
        f"in {provider}'s list. Or look there yourself, and say that it is not there, or {provider}'s ID of it:\n"
        f"  {command} absent\n"
        f"  {command} ID"
    )
