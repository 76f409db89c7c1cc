"""The question before a run whose budget can't be held, asked on a real terminal: yes, no, Ctrl-C, and nobody there."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson

from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import Output
from tests.conformance.terminal import Terminal
from transforms.storage.runs import list_runs

_GAP = "budget.max_usd can't be held: the price table has no nobody-lists-this of openai"
_QUESTION = f"{_GAP}. Run all the same, counting only the costs that are known? [y/N]:"
_REFUSED = f"rowbeam: {_GAP}; put that right, or run with --yes: only costs that are known then count"
#: What is typed, and how it ends: the exit code, and the last words.
_NOES = [("n\n", 2, _REFUSED), ("\n", 2, _REFUSED), ("\x04", 2, _REFUSED), ("\x03", 130, "rowbeam: stopped by you")]


def test_only_a_yes_at_the_terminal_starts_a_run(
    make_job: Callable[..., Path], sandbox: RunningSandbox, output: Output
) -> None:
    """Nobody there, no, Enter alone, end of input: exit 2 and the cure; Ctrl-C: its own exit code; yes: all is sent.

    While somebody thinks nothing is sent, and nobody holds the output.
    """
    model = {"name": "nobody-lists-this", "allow_unlisted": True}
    job = make_job(model=model, budget={"max_usd": 1})
    times = ["nobody", *["somebody"] * (len(_NOES) + 1)]
    with closing(Terminal([str(job), "--no-report"], times)) as terminal:
        code, shown = terminal.end()
        assert (code, shown.endswith(_REFUSED), _QUESTION in shown) == (2, True, False), shown
        for keys, exit_code, last in _NOES:
            terminal.wait_for(_QUESTION)
            assert not (output.folder / "ledger" / "lease.json").exists()
            terminal.type(keys)
            code, shown = terminal.end()
            assert (code, shown.endswith(last)) == (exit_code, True), (keys, shown)
        assert (sandbox.stats()["requests"], list_runs(str(output.folder))) == (0, [])

        terminal.wait_for(_QUESTION)
        terminal.type("y\n")
        code, shown = terminal.end()
    assert code == 0, shown
    assert "$1.0000 of all runs together: what is left is unknown, for 1 run that made calls of unknown cost" in shown
    assert sandbox.bill()["accepted"] == 30
    [run] = list_runs(str(output.folder))
    summary = orjson.loads((output.folder / "runs" / run["run_id"] / "summary.json").read_bytes())
    nothing_known = {"charged_usd": None, "left_usd": None, "unknown_runs": 1}
    assert summary["budget"] == {"max_usd": "1", "per": "output", **nothing_known}
