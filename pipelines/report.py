"""The report of a run: one HTML file that needs nothing else, for a manager and an auditor.

Facts come from `run_facts`, pictures from `report_plots`, the page from `pages/report.html`; here they meet. No script,
no network, nothing from outside: pictures are inside the page. Whatever a provider or a row says is escaped.
"""

import base64
import shlex
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipelines.budget import budget_line
from pipelines.facts_drift import comparable_run
from pipelines.report_plots import (
    BLUE,
    SKY,
    answer_plot,
    cost_plot,
    histogram_plot,
    is_drawable,
    outcome_plot,
    timeline_plot,
    traffic_plot,
    word,
)
from pipelines.run_facts import run_facts
from pipelines.run_tables import find_run
from pipelines.text import duration, milliseconds, moment, money, number, plural
from transforms.rules.redaction import Redactor
from transforms.storage.mirror import local_view
from transforms.storage.objects import write_atomic
from transforms.storage.runs import RunFolder

#: Fields whose answers get a picture; of the others a table tells, so that a page of hundreds of fields stays small.
PICTURED_FIELDS = 16

_BATCH_MODE = "provider_batch_api"
_STATUS = {
    "done": ("done", "good"),
    "pending": ("rows are pending", "warn"),
    "budget_stop": ("stopped by its budget", "warn"),
    "too_many_dead_letters": ("too many dead letters", "bad"),
    "incomplete_input": ("an input is incomplete", "bad"),
    "refused": ("refused by the provider", "bad"),
    "crashed": ("killed", "bad"),
    "broken": ("conservation is broken", "bad"),
}
_MEASURES = {
    "input_tokens_per_request": "input tokens",
    "output_tokens_per_request": "output tokens",
    "usd_per_request": "US dollars",
}


def write_report(output: str, run_id: str | None = None) -> dict[str, Any]:
    """Write `runs/<run_id>/report.html` of an ended run and return {"run_id", "report" (its path), "findings"}.

    Args:
        output: the job's output folder.
        run_id: the run; None takes the latest that has ended.

    Raises:
        ConfigError: there is no such run.
    """
    with local_view(output, _is_told) as view:
        run = find_run(view, run_id)
        earlier = comparable_run(run)
    runs = {run.run_id, earlier.run_id if earlier else None}
    with local_view(output, lambda name: _is_told(name) or PurePath(name).parts[:2][-1] in runs) as view:
        facts = run_facts(view, run.run_id)
    path = RunFolder(output, facts["run"]["run_id"]).report
    write_atomic(path, render_report(facts, output).encode())
    return {"run_id": facts["run"]["run_id"], "report": path, "findings": facts["findings"]}


def _is_told(name: str) -> bool:
    """Say whether a file of an output tells what a run was, in few bytes."""
    return PurePath(name).name in ("manifest.json", "summary.json")


def render_report(facts: Mapping[str, Any], output: str) -> str:
    """Return the page. Equal facts give the same page."""
    facts = Redactor().value(dict(facts))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(_FILTERS)
    environment.globals["plot"] = _plot
    source = resources.files("pipelines").joinpath("pages/report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render({**facts, **_words(facts, output), "plots": _plots(facts)})


def _plots(facts: Mapping[str, Any]) -> dict[str, Any]:
    tokens = facts["tokens"]
    return {
        "outcomes": outcome_plot(facts["rows"]),
        "cost": cost_plot(facts["cost"]["by"]),
        "latency": histogram_plot("latency of a real-time call, ms", facts["latency_ms"]),
        "input": histogram_plot("input tokens of a call", tokens["input"], SKY),
        "output": histogram_plot("output tokens of a call", tokens["output"], BLUE),
        "timeline": timeline_plot(facts["batches"]),
        "traffic": traffic_plot(facts["throttling"]["timeline"]),
        "answers": [answer_plot(answer) for answer in facts["answers"][:PICTURED_FIELDS]],
    }


def _plot(svg: bytes | None, alt: str, form: str = "") -> Markup:
    """Put a picture into the page; nothing where there is none."""
    if svg is None:
        return Markup()
    data = base64.b64encode(svg).decode("ascii")
    return Markup('<div class="plot {}"><img alt="{}" src="data:image/svg+xml;base64,{}"></div>').format(
        form, alt, data
    )


def _words(facts: Mapping[str, Any], output: str) -> dict[str, Any]:
    run, rows, cost, calls = facts["run"], facts["rows"], facts["cost"], facts["calls"]
    words, tone = _STATUS.get(run["status"], (str(run["status"]).replace("_", " "), "warn"))
    provider_batches = [
        one | {"took": _took(one["submitted_at"], one["ended_at"])}
        for one in facts["batches"]
        if one["mode"] == _BATCH_MODE
    ]
    seconds, read = run["duration_s"], rows["in"]
    return {
        "status_words": words,
        "status_tone": tone,
        "rows_words": f"{read / seconds:,.0f} a second" if read and seconds else "",
        "shares": {name: _share(rows[name], read) for name in ("enriched", "dead_lettered")},
        "cost_words": _cost_words(cost),
        "call_words": f"{number(calls['retries'])} retries, {number(calls['reused'])} answers reused",
        "outcome_alt": ", ".join(
            f"{number(rows[name])} {_spaced(name)}" for name in ("enriched", "dead_lettered", "pending")
        ),
        "pictured": [one | {"needs_table": _needs_table(one)} for one in facts["answers"][:PICTURED_FIELDS]],
        "listed": [one | {"words": _value_words(one)} for one in facts["answers"][PICTURED_FIELDS:]],
        "plan_rows": _plan_rows(cost["plan"]),
        "plan_method": _plan_method(cost["plan"]),
        "budget": _budget(cost["budget"]),
        "provider_batches": provider_batches,
        "batches_left_out": max(0, facts["batches_total"] - len(facts["batches"])) if provider_batches else 0,
        "commands": _commands(facts, output),
        "versions_words": ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version),
    }


def _needs_table(answer: Mapping[str, Any]) -> bool:
    """Say whether a field's picture can't show its values, for lack of a font."""
    is_named = answer["kind"] in ("category", "boolean")
    return is_named and not all(is_drawable(_cut(word(one["value"]), 300)) for one in answer["values"])


def _value_words(answer: Mapping[str, Any]) -> str:
    """Tell of a field's values in a line."""
    if (stats := answer["stats"]) is not None:
        return f"{_plain(stats['min'])} to {_plain(stats['max'])}, median {_plain(stats['p50'])}"
    often = [one for one in answer["values"] if one["count"] > 1][:3]
    return ", ".join(f"{_cut(word(one['value']), 40)} ({one['share']:.1%})" for one in often)


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{float(value):,.6g}"


def _commands(facts: Mapping[str, Any], output: str) -> str:
    place = shlex.quote(output)
    lines = [f"rowbeam verify {place}", f"rowbeam explain {place} ROW_ID"]
    if facts["previous_run_id"]:
        lines.append(f"rowbeam diff {place} {facts['previous_run_id']} {facts['run']['run_id']}")
    return "\n".join(lines)


def _cost_words(cost: Mapping[str, Any]) -> str:
    if cost["usd"] is None:
        return next(iter(cost["reasons"]), "no price is known")
    parts = [] if cost["per_1000_rows_usd"] is None else [f"{money(cost['per_1000_rows_usd'])} per 1,000 rows"]
    if cost["unknown_calls"]:
        parts.append(f"and {plural(cost['unknown_calls'], 'call')} of unknown cost")
    return ", ".join(parts)


def _plan_rows(plan: Mapping[str, Any] | None) -> list[tuple[str, str, str, str]]:
    found = []
    for key, name in _MEASURES.items():
        one = (plan or {}).get(key)
        if isinstance(one, Mapping) and one.get("actual") is not None:
            error = one.get("error")
            shown = money if key == "usd_per_request" else _round_count
            expected = one.get("estimated")
            found.append((
                name,
                "unknown" if expected is None else shown(expected),
                shown(one["actual"]),
                "-" if error is None else f"{float(error):+.0%}",
            ))  # fmt: skip
    return found


def _plan_method(plan: Mapping[str, Any] | None) -> str | None:
    method, error = (plan or {}).get("method"), (plan or {}).get("method_error")
    return f"{method}, {error}" if method and error else method


def _budget(budget: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not budget or budget.get("max_usd") is None:
        return None
    percent = 100 * float(budget["charged_usd"] or 0) / float(budget["max_usd"])
    unknown = budget_line(budget) if budget.get("unknown_runs") else None
    return {**budget, "percent": f"{min(100.0, percent):.1f}", "unknown": unknown}


def _took(begun: str | None, ended: str | None) -> str:
    if begun is None or ended is None:
        return "-"
    return duration((datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds())


def _share(part: int | None, whole: int | None) -> str:
    return f"{part / whole:.1%}" if part is not None and whole else ""


def _spaced(word: str) -> str:
    return {"dead_lettered": "dead letters", "provider_batch_api": "batch"}.get(word, word.replace("_", " "))


def _cut(text: object, most: int) -> str:
    line = " ".join(str(text if text is not None else "").split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _round_count(value: float | str | None) -> str:
    if value is None:
        return "-"
    exact = float(value)
    return f"{exact:,.0f}" if exact >= 100 or exact == int(exact) else f"{exact:,.1f}"


_FILTERS: dict[str, Any] = {
    "count": number,
    "money": money,
    "duration": duration,
    "milliseconds": milliseconds,
    "moment": moment,
    "plural": plural,
    "share": _share,
    "words": _spaced,
    "cut": _cut,
    "tail": lambda text, most: str(text)[-most:],
    "round_count": _round_count,
    "plain": _plain,
    "word": word,
}
