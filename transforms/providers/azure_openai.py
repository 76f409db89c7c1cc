"""Azure OpenAI: the dated and the v1 URLs, its keys, content filter and errors (providers.md 3).

`model.deployment` is what is called; `model.name` is the model behind it, which only prices need.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from transforms.providers import chat_completions
from transforms.providers.classify import ErrorWords, openai_kind
from transforms.providers.openai import check_stops
from transforms.providers.openai_family import OpenAIFamily
from transforms.providers.reading import first, mapping, words
from transforms.providers.settings_check import check_settings, require_base_url
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpRequest, HttpResponse, Reply
from transforms.records.settings import ModelSettings

_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
_HINTS: Mapping[str, str] = {
    "deploymentnotfound": "check model.deployment and model.base_url; a new deployment takes up to 5 minutes to appear",
    "operationnotsupported": "this deployment does not serve real-time calls of this API; name another in "
    "model.deployment",
}


class AzureOpenAI(OpenAIFamily):
    """An Azure OpenAI resource. `api_version` is v1 (default) or a date; `auth` api_key (default) or bearer.

    Attributes:
        version: v1, or the date that the URLs name.
    """

    name = "azure.ai.openai"
    default_key_env: ClassVar[str | None] = "AZURE_OPENAI_API_KEY"
    request_id_headers: ClassVar[tuple[str, ...]] = ("apim-request-id", "x-request-id")

    def __init__(self, settings: ModelSettings, schema: dict[str, Any] | None) -> None:
        check_settings(settings, apis=("chat_completions", "responses"), auths=("api_key", "bearer"))
        check_stops(settings)
        base_url = require_base_url(settings, "https://RESOURCE.openai.azure.com")
        if not settings.deployment:
            raise ConfigError("model.deployment: azure_openai needs the name of the deployment to call")
        self.version = _version(settings)
        self._bearer = settings.auth == "bearer"
        self._host = urlsplit(base_url).hostname
        endpoint = base_url.removesuffix("/openai/v1").removesuffix("/openai")
        root = "/openai/v1" if self.version == "v1" else "/openai"
        super().__init__(settings, schema, endpoint + root, settings.deployment)

    def identity(self) -> dict[str, Any]:
        """Return provider, API, the resource's host and the body without prompt (its model is the deployment)."""
        return super().identity() | {"base_url": self._host}

    def url(self) -> str:
        """Return where requests go; of the dated URLs only chat is below the deployment."""
        if self.version == "v1":
            return super().url()
        if self._api == "responses":
            return f"{super().url()}?api-version={self.version}"
        path = f"/deployments/{self.request_model}{chat_completions.PATH}"
        return f"{self.base_url}{path}?api-version={self.version}"

    def auth_headers(self, key: str | None) -> dict[str, str]:
        """Return the key as `api-key`, or as a bearer token."""
        if self._bearer or key is None:
            return super().auth_headers(key)
        return {"api-key": key}

    def probe(self, key: str | None) -> HttpRequest | None:
        """Return a GET of the resource's models."""
        query = "" if self.version == "v1" else f"?api-version={self.version}"
        return HttpRequest("GET", f"{self.base_url}/models{query}", self.all_headers(key), b"")

    def read_answer(self, data: Any, response: HttpResponse) -> Reply | CallError:
        """Read a chat completion; a filtered one says what was filtered."""
        outcome = chat_completions.read_answer(data, response)
        if isinstance(outcome, Reply) and outcome.kind is FailureKind.CONTENT_FILTERED:
            return _explained(outcome, _filtered(first(mapping(data).get("choices"))))
        return outcome

    def kind(self, status: int, error: ErrorWords, data: Any) -> FailureKind:
        """Return the kind of an error; the content filter may only show in `innererror`."""
        inner = words(_inner(data).get("code"))
        if inner == "ResponsibleAIPolicyViolation":
            return FailureKind.CONTENT_FILTERED
        return openai_kind(status, error)

    def message(self, error: ErrorWords, data: Any) -> str | None:
        """Return the error's words, with what was filtered or what to do."""
        said = error.message or error.name or "no reason given"
        filtered = _filtered(_inner(data))
        if filtered:
            return f"{said} (filtered: {filtered})"
        hint = _HINTS.get((error.code or "").lower())
        return f"{said} ({hint})" if hint else said


def _version(settings: ModelSettings) -> str:
    version = settings.api_version or "v1"
    if version == "v1":
        return version
    if not _DATED.fullmatch(version):
        raise ConfigError(f"model.api_version: {version!r} is neither v1 nor a date such as 2024-10-21")
    if settings.api == "responses" and not version.endswith("-preview"):
        raise ConfigError(
            f"model.api_version: {version} has no Responses API; use v1 or a preview version such as 2025-04-01-preview"
        )
    return version


def _inner(data: Any) -> Mapping[str, Any]:
    return mapping(mapping(mapping(data).get("error")).get("innererror"))


def _filtered(holder: Mapping[str, Any]) -> str:
    """Name the categories that were filtered; Azure writes content_filter_result with and without an s."""
    results = mapping(holder.get("content_filter_results")) or mapping(holder.get("content_filter_result"))
    names = []
    for category, value in results.items():
        verdict = mapping(value)
        if verdict.get("filtered") is True:
            severity = words(verdict.get("severity"))
            names.append(f"{category} ({severity})" if severity else category)
    return ", ".join(names)


def _explained(reply: Reply, explanation: str) -> Reply:
    return replace(reply, explanation=f"filtered: {explanation}") if explanation else reply
