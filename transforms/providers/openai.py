"""OpenAI: chat completions and the Responses API (providers.md 2)."""

from typing import Any, ClassVar

from transforms.providers.openai_family import OpenAIFamily
from transforms.providers.settings_check import check_settings
from transforms.records.errors import ConfigError
from transforms.records.settings import ModelSettings

MAX_STOPS = 4


def check_stops(settings: ModelSettings) -> None:
    """Raise ConfigError for more stop sequences than chat completions take."""
    if settings.params.stop is not None and len(settings.params.stop) > MAX_STOPS:
        raise ConfigError(
            f"model.params.stop: {settings.provider} takes at most {MAX_STOPS} stop sequences; "
            f"the job has {len(settings.params.stop)}"
        )


class OpenAI(OpenAIFamily):
    """The OpenAI API. `base_url` in the settings replaces the address (a regional one, or a stand-in)."""

    name = "openai"
    default_key_env: ClassVar[str | None] = "OPENAI_API_KEY"

    own_address: ClassVar[str] = "https://api.openai.com/v1"

    def __init__(self, settings: ModelSettings, schema: dict[str, Any] | None) -> None:
        check_settings(settings, apis=("chat_completions", "responses"))
        check_stops(settings)
        base_url = (settings.base_url or self.own_address).rstrip("/")
        super().__init__(settings, schema, base_url, settings.name)
