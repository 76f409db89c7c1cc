"""Azure OpenAI's batch API: OpenAI's with other addresses, slower files and an own deployment (providers.md 3.3, 3.4)."""

from dataclasses import replace
from typing import Any, ClassVar

from transforms.providers.azure_openai import AzureOpenAI
from transforms.providers.batch_openai import OpenAIBatch
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpResponse
from transforms.records.settings import ModelSettings

_ENQUEUED = "token_limit_exceeded"

#: Azure takes 14 to 30 days. An expiry raises the number of files a resource may hold from 500 to 10,000; batches
#: there may wait for long, so it is the longest.
_FILE_LIFE_S = 30 * 86_400


class AzureBatch(OpenAIBatch):
    """Satisfies `BatchApi`: Global-Batch and Data Zone Batch deployments, at dated and v1 addresses.

    Args:
        settings: the job's `model`; needs `batch_deployment`.
        provider: built from the same settings.
    """

    waits_for_file = True
    expires = False
    min_poll_s = 60.0

    file_type: ClassVar[str] = "application/json"
    upload_fields: ClassVar[tuple[tuple[str, str], ...]] = (
        ("purpose", "batch"),
        ("expires_after[anchor]", "created_at"),
        ("expires_after[seconds]", str(_FILE_LIFE_S)),
    )

    def __init__(self, settings: ModelSettings, provider: AzureOpenAI) -> None:
        super().__init__(settings, provider)
        if not settings.batch_deployment:
            raise ConfigError(
                "model.batch_deployment: batches need the name of a Global-Batch or Data Zone Batch deployment, which "
                "is another one than model.deployment; name it or set batching.mode: per_request"
            )
        self.request_model = settings.batch_deployment
        self.line_url = "/v1/responses" if settings.api == "responses" else "/chat/completions"
        # The documented value for either API: the service goes by the lines (3.4).
        self.endpoint = "/chat/completions"
        self._version = {} if provider.version == "v1" else {"api-version": provider.version}

    def line(self, custom_id: str, body: dict[str, Any]) -> bytes:
        """Return the line for one request; its model is the batch deployment."""
        return super().line(custom_id, {**body, "model": self.request_model})

    def url(self, path: str, **query: str) -> str:
        """Return the address of a path; files and batches are never below a deployment."""
        return super().url(path, **query, **self._version)

    def refused(self, response: HttpResponse) -> CallError:
        """Return the error of a reply; the 400 by which some regions refuse a create for now is ENQUEUED_LIMIT."""
        error = super().refused(response)
        if response.status == 400 and _ENQUEUED.encode() in response.body.lower():
            return replace(error, kind=FailureKind.ENQUEUED_LIMIT, code=_ENQUEUED)
        return error
