"""A row's story as one HTML page for auditors: no scripts, nothing from outside, readable offline and in print.

Facts come from `explain_row`, the page is `pages/explain.html`; whatever a provider or a row says is escaped.
"""

import shlex
from collections.abc import Mapping
from importlib import resources
from typing import Any

import orjson
from jinja2 import Environment, StrictUndefined

from pipelines.advice import advice
from pipelines.explain_html_facts import (
    answer_facts,
    batch_sections,
    file_rows,
    hash_facts,
    link_rows,
    prompt_facts,
    row_facts,
)
from pipelines.explain_html_life import has_bars, life
from pipelines.explain_tree_facts import cost_words, proof_words
from pipelines.text import milliseconds, moment, money, number, plural, value_text

_OUTCOMES = {
    "enriched": ("enriched", "good"),
    "dead_lettered": ("dead letter", "bad"),
    "pending": ("pending", "warn"),
}


def render_story(story: Mapping[str, Any], output: str) -> str:
    """Return the page. Equal stories give the same page.

    Args:
        story: as `explain_row` tells it, secrets taken out.
        output: the output folder, as people would name it.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(_FILTERS)
    source = resources.files("pipelines").joinpath("pages/explain.html").read_text(encoding="utf-8")
    return environment.from_string(source).render({**story, **_words(dict(story), output)})


def _words(story: dict[str, Any], output: str) -> dict[str, Any]:
    words, tone = _OUTCOMES.get(story["outcome"], (story["outcome"], "warn"))
    failure = story["failure"]
    proof = story["proof"]
    return {
        "outcome_words": words,
        "tone": tone,
        "job_name": story["job_name"],
        "figures": _figures(story),
        "moments": life(story["timeline"]),
        "has_bars": has_bars(story["timeline"]),
        "failure_words": _failure_words(failure) if failure else "",
        "answer_facts": answer_facts(story),
        "row_facts": row_facts(story),
        "prompt_facts": prompt_facts(story),
        "hash_facts": hash_facts(story),
        "batches": batch_sections(story),
        "cost_line": _cost_line(story),
        "proof_line": proof_words(proof),
        "proof": {**proof, "files": file_rows(proof["files"]), "chain": link_rows(proof["chain"])},
        "output": output,
        "command": f"rowbeam explain {shlex.quote(output)} {shlex.quote(story['row_id'])} --run {story['run_id']} --html FILE",
    }


def _figures(story: dict[str, Any]) -> list[tuple[str, str, str]]:
    calls, cost, model = story["calls"], story["cost"], story["model"]
    failed = sum(call["outcome"] != "ok" for call in calls)
    paid = (
        ""
        if not calls
        else "all of it known"
        if cost["is_exact"]
        else plural(cost["unknown_calls"], "call") + " unknown"
    )
    found = [
        ("cost", money(cost["usd"]), paid),
        ("calls", number(len(calls)), f"{number(failed)} failed" if calls else ""),
    ]
    if story["request"]:
        answered = f"answered by {model['answered']}" if model["answered"] else "no answer"
        found.append(("model", str(model["asked"]), answered))
    reused = "answer reused" if story["reuse"] else ""
    found.append(("runs with this row", number(len(story["history"])), reused))
    return found


def _failure_words(failure: dict[str, Any]) -> str:
    tries = plural(failure["attempts"], "attempt") if failure["attempts"] else "No call was made"
    retry = "another run may succeed" if failure["retryable"] else "another run gives the same"
    return f"{tries}; {retry}. What to do: {advice(failure['kind'])}."


def _cost_line(story: dict[str, Any]) -> str:
    if story["calls"]:
        return cost_words(story)
    return "nothing yet: a batch is billed by its answers" if story["waits_in"] else "$0: no call was made"


def _sentence(text: str) -> str:
    whole = text.strip()
    return whole if whole.endswith((".", "!", "?")) else f"{whole}."


def _pretty(value: Any) -> str:
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode()
    return value_text(value)


_FILTERS = {
    "count": number,
    "money": money,
    "moment": moment,
    "milliseconds": milliseconds,
    "pretty": _pretty,
    "sentence": _sentence,
    "shown": value_text,
    "words": lambda text: str(text).replace("_", " "),
}
