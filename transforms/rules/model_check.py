"""Can this job's model do what the job asks, as far as the model manifest knows: decided before anything is spent; pure.

An error is what the provider would answer to every request with a refusal. What only some requests would meet, or
what is not certain, is a warning: one long row must not keep a job from running (P7). Sources: providers.md 0.1, 2.2,
2.6, 3.4, 4.1, 10.2, and each entry's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from transforms.records.model_entry import Level, ModelEntry, ModelFinding
from transforms.records.settings import ModelSettings

#: Anthropic's API version that refuses sampling parameters for every model, even at their defaults (providers.md 0.1).
_STRICT_VERSION = "2026-10-21"
_STRICT_REFUSES = ("temperature", "top_p", "top_k")
#: Values that a model which refuses the parameter takes all the same: its own defaults (providers.md 10.2).
_DEFAULTS: dict[str, Any] = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
_EFFORT = "reasoning_effort"


@dataclass(frozen=True, slots=True)
class ModelQuestion:
    """What is asked of a model.

    Attributes:
        settings: the job's `model`.
        mode: the job's `batching.mode`; "per_request" where its provider's batches may not be used.
        today: the day of the run.
        near: listed names that are like the model's, for a model that is not listed.
        has_schema: answers are asked for by a JSON Schema.
        max_output_tokens: the limit that requests carry, or None.
        longest_request_tokens: estimated input tokens of the longest request, or None where there is no estimate.
    """

    settings: ModelSettings
    mode: str
    today: date
    near: Sequence[str] = ()
    has_schema: bool = False
    max_output_tokens: int | None = None
    longest_request_tokens: int | None = None


def check_model_entry(entry: ModelEntry | None, question: ModelQuestion) -> list[ModelFinding]:
    """Return what stands between a job and its model; errors first.

    Args:
        entry: what is known of the model; None: nothing.
        question: what is asked of it.
    """
    found = [*_params(entry, question)]
    if entry is None:
        found.append(_unlisted(question))
    else:
        for check in (_lifecycle, _api, _effort, _output, _context, _batch, _schema):
            found += check(entry, question)
    return sorted(found, key=lambda finding: finding.level != "error")


def either(names: Sequence[str]) -> str:
    """Write names as a choice: a; a or b; a, b or c."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _unlisted(question: ModelQuestion) -> ModelFinding:
    settings = question.settings
    level: Level = "warning" if settings.allow_unlisted else "error"
    if settings.provider == "azure_openai" and settings.name == settings.deployment:
        says = (
            f'the deployment "{settings.deployment}" does not tell which model is behind it; set model.name to that '
            "model, such as gpt-4.1-mini-2025-04-14: prices, limits and parameters go by it"
        )
        return ModelFinding(level, "no_model_declared", "model.name", says + _unless(settings))
    guess = f"did you mean {either(question.near)}" if question.near else ""
    known = f"rowbeam models --provider {settings.provider} lists those that are"
    says = f'"{settings.name}" is not in the model manifest of {settings.provider}; {guess or known}'
    if settings.allow_unlisted:
        return ModelFinding(level, "unknown_model", "model.name", says + ("?" if guess else ""))
    cure = "set model.allow_unlisted: true, or describe the model in model.entry"
    says += f"? If the name is right, {cure}" if guess else f"; if the name is right, {cure}"
    return ModelFinding(level, "unknown_model", "model.name", says)


def _unless(settings: ModelSettings) -> str:
    return "" if settings.allow_unlisted else "; or set model.allow_unlisted: true"


def _lifecycle(entry: ModelEntry, question: ModelQuestion) -> Iterator[ModelFinding]:
    status, today = entry.status(question.today), question.today
    instead = f"; {entry.successor} is what its provider recommends instead" if entry.successor else ""
    if status == "retired":
        cure = instead or "; set model.name to one that it serves"
        says = f"{entry.name} was retired on {entry.retired}: {entry.provider} does not serve it any more{cure}"
        yield ModelFinding("error", "retired", "model.name", f"{says}; if it serves you, set model.entry.retired: null")
    elif status == "overdue":
        known_on = entry.dates_as_of or entry.reviewed
        says = (
            f"{entry.name} was to be retired on {entry.retired}, as announced by {known_on}; it may be gone{instead}; "
            "rowbeam check asks the provider"
        )
        yield ModelFinding("warning", "overdue", "model.name", says)
    elif status == "deprecated":
        when = "" if entry.retired is None else f" and ends on {entry.retired} ({_days((entry.retired - today).days)})"
        yield ModelFinding("warning", "deprecated", "model.name", f"{entry.name} is deprecated{when}{instead}")


def _days(count: int) -> str:
    return "tomorrow" if count == 1 else f"in {count:,} days"


def _api(entry: ModelEntry, question: ModelQuestion) -> Iterator[ModelFinding]:
    settings = question.settings
    if entry.apis is not None and settings.provider in {"openai", "azure_openai"} and settings.api not in entry.apis:
        level: Level = "warning" if settings.allow_unlisted else "error"
        says = f"{entry.name} is not served by {settings.api}; set it to {either(entry.apis)}"
        yield ModelFinding(level, "api", "model.api", says)


def _params(entry: ModelEntry | None, question: ModelQuestion) -> Iterator[ModelFinding]:
    """Yield a finding for each parameter the job sets and its model refuses."""
    settings = question.settings
    for name, key, value in _given(settings):
        reason = _strict_reason(settings, name) or (None if entry is None else _reason(entry, settings, name, value))
        if reason is None:
            continue
        level, says = reason
        if settings.provider == "openrouter":
            level, says = "warning", f"{says}: OpenRouter leaves it out, or finds no upstream that takes it; remove it"
        elif settings.allow_unlisted:
            level = "warning"
        yield ModelFinding(level, "refused_param", key, says)


def _given(settings: ModelSettings) -> Iterator[tuple[str, str, Any]]:
    """Yield wire name, key path and value of each parameter that the job sets."""
    params = settings.params
    for name in ("temperature", "top_p", "seed", "stop", _EFFORT):
        value = getattr(params, name)
        if value is not None:
            yield name, f"model.params.{name}", value
    for name, value in params.extra.items():
        yield name, f"model.params.extra.{name}", value


def _strict_reason(settings: ModelSettings, name: str) -> tuple[Level, str] | None:
    if settings.provider != "anthropic" or name not in _STRICT_REFUSES:
        return None
    if (settings.api_version or _STRICT_VERSION) != _STRICT_VERSION:
        return None
    return (
        "error",
        f"the API version {_STRICT_VERSION} does not take it; remove it or set model.api_version: 2023-06-01",
    )


def _reason(entry: ModelEntry, settings: ModelSettings, name: str, value: Any) -> tuple[Level, str] | None:
    """Return how certain it is that the model refuses a parameter at this value, and why; None: it does not."""
    if name in entry.accepts or (name in _DEFAULTS and value == _DEFAULTS[name]):
        return None
    cure = "" if settings.provider == "openrouter" else "; remove it"
    if name in entry.refuses:
        kind = "a reasoning model and takes" if entry.reasoning and name != _EFFORT else "a model that takes"
        only = " but the default" if name in _DEFAULTS else ""
        return "error", f"{entry.name} is {kind} no {name}{only}{cure}"
    if name not in entry.refuses_while_reasoning:
        return None
    effort = _effort_of(settings) or entry.default_effort
    if effort == "none":
        return None
    instead = f"; remove it, or set model.params.{_EFFORT}: none" if "none" in (entry.efforts or ()) else cure
    at = f"at effort {effort}" if effort is not None else "at any effort but none"
    return ("warning" if effort is None else "error"), f"{entry.name} takes no {name} {at}{instead}"


def _effort_of(settings: ModelSettings) -> str | None:
    """Return the effort that requests name, wherever the job sets it."""
    extra = settings.params.extra
    reasoning = extra.get("reasoning")
    inner = reasoning.get("effort") if isinstance(reasoning, dict) else None
    return settings.params.reasoning_effort or extra.get(_EFFORT) or inner


def _effort(entry: ModelEntry, question: ModelQuestion) -> Iterator[ModelFinding]:
    settings = question.settings
    effort = settings.params.reasoning_effort
    if effort is None or entry.efforts is None or effort in entry.efforts or _EFFORT in entry.refuses:
        return
    soft = settings.allow_unlisted or settings.provider == "openrouter"
    says = f'{entry.name} has no effort "{effort}"; use {", ".join(entry.efforts)}'
    yield ModelFinding("warning" if soft else "error", "effort", f"model.params.{_EFFORT}", says)


def _output(entry: ModelEntry, question: ModelQuestion) -> Iterator[ModelFinding]:
    asked, limit, window = question.max_output_tokens, entry.max_output_tokens, entry.context_tokens
    if asked is None:
        return
    # OpenRouter's upstreams differ, and the one that serves a call is its choice.
    level: Level = "warning" if entry.provider == "openrouter" else "error"
    key = "model.params.max_output_tokens"
    if limit is not None and asked > limit:
        says = f"{asked:,} is above the {limit:,} that {entry.name} gives at most; lower it"
        yield ModelFinding(level, "output_limit", key, says)
    elif window is not None and asked >= window:
        says = f"{asked:,} leaves no room for a prompt in the {window:,} tokens of context of {entry.name}; lower it"
        yield ModelFinding(level, "output_limit", key, says)


def _context(entry: ModelEntry, question: ModelQuestion) -> Iterator[ModelFinding]:
    longest, window = question.longest_request_tokens, entry.context_tokens
    if longest is None or window is None:
        return
    room = question.max_output_tokens or 0
    if longest + room > window:
        wanted = f"about {longest:,} tokens" + (f" and {room:,} for its answer" if room else "")
        says = (
            f"the longest request has {wanted}, more than the {window:,} tokens of context of {entry.name}; such rows "
            "become dead letters: shorten the template or the rows"
        )
        yield ModelFinding("warning", "context", "prompt.template", says)


def _batch(entry: ModelEntry, question: ModelQuestion) -> Iterator[ModelFinding]:
    if entry.batch is not False:
        return
    says = f"the batch API of {entry.provider} does not take {entry.name}"
    if question.mode == "provider_batch_api":
        yield ModelFinding("error", "batch", "batching.mode", f"{says}; use per_request or serial_bundle")
    elif question.mode == "auto":
        yield ModelFinding("warning", "batch", "batching.mode", f"{says}: every request goes real time, at full price")


def _schema(entry: ModelEntry, question: ModelQuestion) -> Iterator[ModelFinding]:
    if question.has_schema and entry.structured_output is False:
        says = (
            f"{entry.name} has no structured output: answers are checked against the schema here, and those that fail "
            "are asked for again or become dead letters"
        )
        yield ModelFinding("warning", "structured_output", "answer.schema", says)
