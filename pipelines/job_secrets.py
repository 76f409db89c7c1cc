"""Which values of the environment a job keeps secret."""

from pipelines.logs import known_secrets
from transforms.providers import make_provider
from transforms.records.settings import Job


def job_secrets(job: Job) -> list[str]:
    """Return the values of the key variables the job's model uses, as far as they are set.

    Raises:
        ConfigError: the model's settings can't work.
    """
    return known_secrets([make_provider(job.model, None).key_env])
