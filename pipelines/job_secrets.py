"""Which values a job keeps secret."""

from pipelines.logs import known_secrets
from transforms.providers import make_provider
from transforms.providers.secret import read_secret
from transforms.records.errors import ConfigError
from transforms.records.settings import Job


def job_secrets(job: Job) -> list[str]:
    """Return the key that the job's model uses, as far as this process can know it.

    Raises:
        ConfigError: the model's settings can't work.
    """
    provider = make_provider(job.model, None)
    if provider.key_secret is None:
        return known_secrets([provider.key_env])
    try:
        return [read_secret(provider.key_secret)]
    except ConfigError:
        # What this process can't read it can't show; whether it needs the key is for others to say.
        return []
