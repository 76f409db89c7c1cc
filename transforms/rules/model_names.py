"""One model, many names: aliases, dated snapshots, fine-tuned models, OpenRouter's variants; pure."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

_OPENAI_TUNED = re.compile(r"ft:(?P<base>[^:]+)(?::.*)?")
_AZURE_TUNED = re.compile(r"(?P<base>.+?)\.ft-.+")
_DATED = re.compile(r"(?P<base>.+?)[-@](?:\d{8}|\d{4}-\d{2}-\d{2})")
_VARIANT = re.compile(r"(?P<base>[^/]+/[^:]+):[a-z0-9_-]+")
_NEAR = 3
_BEHIND = 0.1


@dataclass(frozen=True, slots=True)
class NameForm:
    """A name to look a model up by.

    Attributes:
        text: the name.
        fine_tuned: it is the base of the model that was named.
        undated: the date was taken off, so only a model that is listed without one is meant.
    """

    text: str
    fine_tuned: bool = False
    undated: bool = False


def name_forms(provider: str, name: str) -> list[NameForm]:
    """Return the names to look a model up by, the name itself first.

    Args:
        provider: as the job file names it.
        name: `model.name`: `ft:BASE:org::id` and `BASE.ft-id` are fine-tuned models, `vendor/model:free` is a variant of
            OpenRouter's, `NAME-2026-01-31` and `NAME-20260131` are snapshots, `gpt-35-...` is how Azure writes gpt-3.5.
    """
    forms = [NameForm(name)]
    tuned = _OPENAI_TUNED.fullmatch(name) or (_AZURE_TUNED.fullmatch(name) if provider == "azure_openai" else None)
    if tuned and provider in {"openai", "azure_openai"}:
        forms.append(NameForm(tuned["base"], fine_tuned=True))
    variant = _VARIANT.fullmatch(name) if provider == "openrouter" else None
    if variant:
        forms.append(NameForm(variant["base"]))
    if provider == "azure_openai":
        forms += [
            NameForm("gpt-3.5-" + form.text.removeprefix("gpt-35-"), form.fine_tuned)
            for form in forms
            if form.text.startswith("gpt-35-")
        ]
    dated = [(form, match) for form in forms if (match := _DATED.fullmatch(form.text))]
    return forms + [NameForm(match["base"], form.fine_tuned, undated=True) for form, match in dated]


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that are most like the name, the likest first; none far behind it."""
    spelled: dict[str, str] = {}
    for one in known:
        spelled.setdefault(one.lower(), one)
    close = difflib.get_close_matches(name.lower(), spelled, n=_NEAR, cutoff=0.6)
    if not close:
        return []
    least = _likeness(name, close[0]) - _BEHIND
    return [spelled[low] for low in close if _likeness(name, low) >= least]


def _likeness(name: str, low: str) -> float:
    return difflib.SequenceMatcher(None, name.lower(), low).ratio()
