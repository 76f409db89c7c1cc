"""The model manifest: what is known of each provider's models, and what stands between a job and its model.

The built-in files (pipelines/models/PROVIDER.yaml) are read when a job first needs its provider's, and checked as they
are read. A job lays its own knowledge over them: `model.manifest`, a file of entries in the same form, which extend or
replace the built-in ones of the same provider and name; and `model.entry`, laid over the entry that was found.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.job_errors import closest, show
from pipelines.job_yaml import load_mapping
from transforms.records.errors import ConfigError
from transforms.records.model_entry import ListedProvider, ModelEntry, ModelFinding
from transforms.records.settings import Job, ModelSettings
from transforms.rules.model_check import ModelQuestion, check_model_entry
from transforms.rules.model_names import name_forms, near_names
from transforms.rules.route import is_batch_allowed

#: Providers with a manifest, in the order they are shown.
LISTED_PROVIDERS: tuple[str, ...] = get_args(ListedProvider)
_FOLDER = Path(__file__).parent / "models"
#: Keys that entries of a file take from the file where they have none of their own.
_FILE_KEYS = ("provider", "reviewed", "dates_as_of", "source")
_NO_NAMES = {"name": "model.name", "provider": "model.provider"}


class _ManifestFile(BaseModel):
    """The form of a manifest file; `shared` is free for YAML anchors."""

    model_config = ConfigDict(extra="forbid")

    provider: Any = None
    reviewed: Any = None
    dates_as_of: Any = None
    source: Any = None
    shared: Any = None
    models: list[dict[str, Any]]

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries, with what the file says of all of them."""
        common = {key: value for key in _FILE_KEYS if (value := getattr(self, key)) is not None}
        return [common | one for one in self.models]


class Shelf:
    """The entries of one provider, by every name. Later entries replace earlier ones of the same name."""

    def __init__(self, entries: Iterable[ModelEntry]) -> None:
        self._by_name = {entry.name: entry for entry in entries}
        self._by_alias = {alias: entry for entry in self._by_name.values() for alias in entry.aliases}

    @property
    def entries(self) -> list[ModelEntry]:
        """All entries, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def find(self, provider: str, name: str) -> ModelEntry | None:
        """Return the entry that a name means; of a fine-tuned model its base's, without what need not hold for it."""
        for form in name_forms(provider, name):
            entry = self._by_name.get(form.text)
            if entry is None and not form.undated:
                entry = self._by_alias.get(form.text)
            if entry is not None:
                return _tuned(entry) if form.fine_tuned else entry
        return None


def resolve(job: Job) -> ModelEntry | None:
    """Return what is known of the job's model: built in, from the job's manifest file, and from its `model.entry`.

    Args:
        job: with absolute paths.

    Returns:
        None where nothing is known, and for providers without a manifest (openai_compatible, llama_cpp).

    Raises:
        ConfigError: the manifest file or the entry is wrong; a line for each wrong key.
    """
    model = job.model
    if model.provider not in LISTED_PROVIDERS:
        return None
    entry = _shelf_of(model).find(model.provider, model.name) or _as_openai(model)
    return entry if model.entry is None else _overlaid(model, entry, model.entry)


def check_model(
    job: Job,
    *,
    has_schema: bool = False,
    max_output_tokens: int | None = None,
    longest_request_tokens: int | None = None,
    today: date | None = None,
) -> list[ModelFinding]:
    """Return what stands between the job and its model, errors first; see `rules/model_check.py`.

    Args:
        job: with absolute paths.
        has_schema: the answer has a JSON Schema.
        max_output_tokens: the limit that requests carry; None: the job's own setting.
        longest_request_tokens: estimated input tokens of the longest request; None: not estimated.
        today: the day to judge by; None: today's date in UTC.

    Raises:
        ConfigError: as `resolve`.
    """
    return judge_model(
        job,
        resolve(job),
        has_schema=has_schema,
        max_output_tokens=max_output_tokens,
        longest_request_tokens=longest_request_tokens,
        today=today,
    )


def judge_model(
    job: Job,
    entry: ModelEntry | None,
    *,
    has_schema: bool = False,
    max_output_tokens: int | None = None,
    longest_request_tokens: int | None = None,
    today: date | None = None,
) -> list[ModelFinding]:
    """Do as `check_model`, for an entry that is at hand."""
    model = job.model
    if model.provider not in LISTED_PROVIDERS:
        return []
    day = today or datetime.now(UTC).date()
    question = ModelQuestion(
        settings=model,
        mode=job.batching.mode if is_batch_allowed(job.batching, model.provider) else "per_request",
        today=day,
        near=() if entry is not None else _near(model, day),
        has_schema=has_schema,
        max_output_tokens=max_output_tokens or model.params.max_output_tokens,
        longest_request_tokens=longest_request_tokens,
    )
    return check_model_entry(entry, question)


def settle_model(
    job: Job, *, has_schema: bool, max_output_tokens: int | None
) -> tuple[ModelEntry | None, list[ModelFinding]]:
    """Return what is known of the job's model, and the warnings about it.

    Raises:
        ConfigError: the job can't work with this model, one line for each reason; or as `resolve`.
    """
    entry = resolve(job)
    findings = judge_model(job, entry, has_schema=has_schema, max_output_tokens=max_output_tokens)
    errors = [finding.line for finding in findings if finding.level == "error"]
    if errors:
        raise ConfigError("\n".join(errors))
    return entry, findings


def listed_models(provider: str, manifest: str | None = None) -> list[ModelEntry]:
    """Return the entries of a provider, by name; with those of a user's file.

    Args:
        provider: one of LISTED_PROVIDERS.
        manifest: path of a manifest file, or None.

    Raises:
        ConfigError: the file is wrong.
    """
    return _shelf(provider, manifest).entries


def _near(model: ModelSettings, today: date) -> list[str]:
    """Return listed names like the model's, of models that are still served."""
    served = [entry for entry in _shelf_of(model).entries if entry.status(today) != "retired"]
    return near_names(model.name, [name for entry in served for name in entry.names])


def _shelf_of(model: ModelSettings) -> Shelf:
    return _shelf(model.provider, model.manifest)


def _shelf(provider: str, manifest: str | None) -> Shelf:
    if manifest is None:
        return built_in(provider)
    own = [entry for entry in read_manifest(manifest) if entry.provider == provider]
    return Shelf([*built_in(provider).entries, *own])


@lru_cache
def built_in(provider: str) -> Shelf:
    """Return the built-in entries of a provider; read once a process."""
    # libyaml reads a file in a tenth of the time; every release of PyYAML has it, a build from source may not.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data = yaml.load((_FOLDER / f"{provider}.yaml").read_bytes(), loader)  # noqa: S506 - a SafeLoader either way
    return Shelf(ModelEntry.model_validate(one) for one in _ManifestFile.model_validate(data).entries())


def read_manifest(path: str) -> list[ModelEntry]:
    """Read a user's manifest file.

    Raises:
        ConfigError: it can't be read, is no YAML, or an entry is wrong or there twice; one line for each.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"model.manifest: can't read {path}: {error.strerror or error}") from error
    name = Path(path).name
    data = load_mapping(text, name, needs="a model manifest needs models: and a list of entries")
    try:
        file = _ManifestFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_lines(error, f"{name}: ", _ManifestFile)) from None
    problems, entries = [], []
    for number, one in enumerate(file.entries()):
        try:
            entries.append(ModelEntry.model_validate(one))
        except ValidationError as error:
            problems.append(_lines(error, f"{name}: models[{number}].", ModelEntry))
    if problems:
        raise ConfigError("\n".join(problems))
    _refuse_twins(entries, name)
    return entries


def _refuse_twins(entries: list[ModelEntry], name: str) -> None:
    seen: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(entries):
        for one in entry.names:
            first = seen.setdefault((entry.provider, one), number)
            if first != number:
                raise ConfigError(f"{name}: models[{number}]: {one} is there already, in models[{first}]; remove one")


def _overlaid(model: ModelSettings, found: ModelEntry | None, own: Mapping[str, Any]) -> ModelEntry:
    for key, instead in _NO_NAMES.items():
        if key in own:
            raise ConfigError(f"model.entry.{key}: is said by {instead} already; remove it")
    base = {"provider": model.provider, "name": model.name} if found is None else found.model_dump()
    try:
        return ModelEntry.model_validate(base | dict(own))
    except ValidationError as error:
        raise ConfigError(_lines(error, "model.entry.", ModelEntry)) from None


def _as_openai(model: ModelSettings) -> ModelEntry | None:
    """Return what OpenAI's file knows of an Azure model; when Azure retires it, and its batches, are Azure's own."""
    if model.provider != "azure_openai":
        return None
    entry = built_in("openai").find("azure_openai", model.name)
    if entry is None:
        return None
    return entry.model_copy(
        update={"provider": "azure_openai", "deprecated": None, "retired": None, "successor": None, "batch": None}
    )


def _tuned(base: ModelEntry) -> ModelEntry:
    """Return what holds for models tuned from this one; Azure retires them later, and batches few (providers.md 3.4)."""
    if base.provider != "azure_openai":
        return base
    return base.model_copy(update={"deprecated": None, "retired": None, "successor": None, "batch": None})


def _lines(error: ValidationError, place: str, form: type[BaseModel]) -> str:
    """Return a line for each wrong key, the cure at its end."""
    lines: dict[str, str] = {}
    for found in error.errors(include_url=False):
        path = ".".join(str(part) for part in found["loc"])
        value = show(found["input"])
        if found["type"] == "extra_forbidden":
            says = f"unknown key; {closest(path, list(form.model_fields))}"
        elif found["type"] == "missing":
            says = "is missing; add it"
        elif found["type"] == "value_error":
            says = str(found["ctx"]["error"])
        else:
            says = f"{value} is not allowed; it {found['msg'].removeprefix('Input ').removeprefix('Value ')}"
        lines.setdefault(path, f"{place}{path}: {says}" if path else f"{place.rstrip('.')}: {says}")
    return "\n".join(lines.values())
