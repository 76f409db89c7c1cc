"""llama.cpp: an embedded server that someone starts in this process (see embedded.py), or one at model.base_url."""

from pathlib import PurePath
from typing import Any, ClassVar

from transforms.providers.openai_family import OpenAIFamily
from transforms.providers.settings_check import check_settings
from transforms.records.reply import HttpRequest
from transforms.records.settings import ModelSettings
from transforms.rules.native_schema import grammar_schema


class LlamaCpp(OpenAIFamily):
    """A llama.cpp server. Whoever embeds it sets `base_url` once its port is known; the identity holds no port.

    Its grammar takes any JSON Schema, so optional members and length limits are sent as they are.
    """

    name = "llama_cpp"
    limit_key: ClassVar[str] = "max_tokens"

    def __init__(self, settings: ModelSettings, schema: dict[str, Any] | None) -> None:
        check_settings(settings)
        super().__init__(settings, schema, (settings.base_url or "").rstrip("/"), settings.name)
        self._gguf = None if settings.gguf is None else PurePath(settings.gguf).name

    def native_schema(self, schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return the schema with closed objects; the grammar always holds."""
        return grammar_schema(schema), True

    def identity(self) -> dict[str, Any]:
        """Return provider, API, body without prompt, and the weights' file name when the job gives one."""
        identity = super().identity() | ({} if self._gguf is None else {"gguf": self._gguf})
        # The port is drawn anew for each run; the weights are what answers.
        identity.pop("base_url", None)
        return identity

    def probe(self, key: str | None) -> HttpRequest | None:
        """Return a GET of the models list, or None before the server's address is known."""
        return super().probe(key) if self.base_url else None
