"""Any server that speaks chat completions: vLLM, llama.cpp, Ollama, routers (providers.md 9).

It is sent `max_tokens`, the only limit that older servers know. No key is sent unless model.api_key_env is set.
"""

from typing import Any, ClassVar

from transforms.providers.openai_family import OpenAIFamily
from transforms.providers.settings_check import check_settings, require_base_url
from transforms.records.settings import ModelSettings


class OpenAICompatible(OpenAIFamily):
    """An OpenAI-compatible server at `base_url`, which is part of the identity: another server, another model."""

    name = "openai_compatible"
    limit_key: ClassVar[str] = "max_tokens"

    def __init__(self, settings: ModelSettings, schema: dict[str, Any] | None) -> None:
        check_settings(settings)
        super().__init__(settings, schema, require_base_url(settings, "http://localhost:8000/v1"), settings.name)

    def identity(self) -> dict[str, Any]:
        """Return provider, API, address and body without prompt."""
        return super().identity() | {"base_url": self.base_url}
