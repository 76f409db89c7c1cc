"""Batching settings against what the job's provider offers: checked before a run, never on a worker."""

from typing import Any

from transforms.providers import BATCH_APIS, make_batch_api
from transforms.providers.base import Provider
from transforms.providers.batch_base import BatchApi
from transforms.records.errors import ConfigError
from transforms.records.settings import Job
from transforms.rules.route import is_batch_allowed

_BATCH_MODES = frozenset({"provider_batch_api", "auto"})


def find_batch_api(job: Job, schema: dict[str, Any] | None, provider: Provider) -> tuple[BatchApi | None, str | None]:
    """Return the batch API that the job can use; or None, and in one clause why not.

    Where a model setting that only batches need is missing or wrong, such as Azure's batch deployment, a job that goes
    real time by its own settings has none. One that may go by batch has to be put right: it would cost twice as much
    as its author thinks.

    Args:
        job: the job.
        schema: the answer's JSON Schema, or None for free text.
        provider: the job's, made of the same settings.

    Raises:
        ConfigError: such a setting, in mode provider_batch_api or auto with this provider allowed.
    """
    try:
        api = make_batch_api(job.model, schema, provider)
    except ConfigError as error:
        if job.batching.mode in _BATCH_MODES and is_batch_allowed(job.batching, job.model.provider):
            raise
        return None, str(error)
    return api, None if api is not None else f"{job.model.provider} has no batch API"


def check_batching(job: Job, has_batch_api: bool) -> None:
    """Check the job's batching settings against its provider and each other.

    Args:
        job: the job.
        has_batch_api: `find_batch_api` found one.

    Raises:
        ConfigError: one line that names the key and the cure.
    """
    batching, provider = job.batching, job.model.provider
    for name in batching.allowed_providers or ():
        if name not in BATCH_APIS:
            offering = ", ".join(BATCH_APIS)
            raise ConfigError(
                f"batching.allowed_providers: {name} has no batch API; take it out (there are: {offering})"
            )
    if batching.mode == "provider_batch_api":
        if not has_batch_api:
            raise ConfigError(f"batching.mode: {provider} has no batch API; use per_request, serial_bundle or auto")
        if not is_batch_allowed(batching, provider):
            raise ConfigError(
                f"batching.mode: batching.allowed_providers leaves out {provider}; add it there, or use per_request, "
                "serial_bundle or auto"
            )
    if batching.detach and batching.mode not in _BATCH_MODES:
        raise ConfigError(
            f"batching.detach: there is no batch to leave behind in mode {batching.mode}; remove it, or set "
            "batching.mode to provider_batch_api or auto"
        )
