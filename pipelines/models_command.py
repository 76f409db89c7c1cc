"""`rowbeam models`: what the model manifest knows, with today's prices. Sends nothing."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from pipelines.model_catalog import LISTED_PROVIDERS, listed_models, resolve
from pipelines.models_text import draw_models
from pipelines.screen import Screen
from transforms.records.errors import ConfigError
from transforms.records.model_entry import ModelEntry
from transforms.records.settings import Job
from transforms.rules.price import PriceTable, Processing


def models_to_screen(screen: Screen, provider: str | None, job: str | None, overrides: Sequence[str] = ()) -> None:
    """Show the manifest.

    Args:
        screen: where to.
        provider: only this provider's models; None: all, or those of the job's.
        job: a job file: its own manifest file counts too, and its model is marked; None: the built-in files alone.
        overrides: `a.b=value` each, of the job.

    Raises:
        ConfigError: there is no such provider, or the job or its manifest file is wrong.
    """
    loaded = None
    if job is not None:
        from pipelines.job import load_job

        loaded = load_job(job, overrides).job
    screen.show(list_models(provider, loaded, datetime.now(UTC).date()), draw_models)


def list_models(provider: str | None, job: Job | None, today: date) -> dict[str, Any]:
    """Return the manifest as JSON values.

    Args:
        provider: only this provider's models; None: all, or those of the job's.
        job: whose manifest file counts too and whose model is marked, or None.
        today: the day that models' status is told for.

    Returns:
        {"provider": str | None, "job": str | None, "today": date, "counts": {status: models}, "models": [...]}, each
        model with the keys of a manifest entry, and "status" (current, deprecated, overdue, retired), "is_jobs" (the
        job's own), and "usd_per_million_tokens": {"real_time": {"input", "output"} | None, "batch": likewise}, money
        as text in plain digits.

    Raises:
        ConfigError: there is no such provider, or the job's manifest file is wrong.
    """
    entries, own = _entries(provider, job)
    prices = PriceTable()
    models = [_facts(entry, prices, today, is_jobs=entry.name == own) for entry in entries]
    return {
        "provider": provider or (job.model.provider if job is not None else None),
        "job": None if job is None else job.name,
        "today": today.isoformat(),
        "counts": dict(Counter(model["status"] for model in models)),
        "models": models,
    }


def _entries(provider: str | None, job: Job | None) -> tuple[list[ModelEntry], str | None]:
    """Return what to show, and the name of the job's own model among it."""
    asked = provider or (job.model.provider if job is not None else None)
    if asked is not None and asked not in LISTED_PROVIDERS:
        raise ConfigError(f"{asked} has no model manifest; there are: {', '.join(LISTED_PROVIDERS)}")
    manifest = None if job is None else job.model.manifest
    entries = [
        entry for one in ((asked,) if asked is not None else LISTED_PROVIDERS) for entry in listed_models(one, manifest)
    ]
    own = resolve(job) if job is not None and job.model.provider == asked else None
    if own is None:
        return entries, None
    # As the job has it, which may be listed otherwise, or not at all.
    shown = {entry.name: entry for entry in entries} | {own.name: own}
    return [shown[name] for name in sorted(shown)], own.name


def _facts(entry: ModelEntry, prices: PriceTable, today: date, *, is_jobs: bool) -> dict[str, Any]:
    return {
        **entry.model_dump(mode="json"),
        "status": entry.status(today),
        "is_jobs": is_jobs,
        "usd_per_million_tokens": {
            "real_time": _rates(prices, entry, "real_time"),
            "batch": _rates(prices, entry, "batch"),
        },
    }


def _rates(prices: PriceTable, entry: ModelEntry, processing: Processing) -> dict[str, str] | None:
    rates = prices.rates(entry.provider, entry.name, processing=processing)
    return None if rates is None else {"input": _plain(rates[0]), "output": _plain(rates[1])}


def _plain(money: Decimal) -> str:
    """Write a price in plain digits, without zeros that say nothing."""
    text = f"{money:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
