"""Layer 3: the model's side of the world; no Beam here. One line per provider."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from transforms.providers.base import Provider
from transforms.providers.batch_base import BatchApi
from transforms.records.settings import ModelSettings, ProviderName

#: Provider name in the job file to (module, class), imported when it is asked for.
PROVIDERS: Mapping[ProviderName, tuple[str, str]] = {
    "openai": ("transforms.providers.openai", "OpenAI"),
    "azure_openai": ("transforms.providers.azure_openai", "AzureOpenAI"),
    "anthropic": ("transforms.providers.anthropic", "Anthropic"),
    "openrouter": ("transforms.providers.openrouter", "OpenRouter"),
    "openai_compatible": ("transforms.providers.openai_compatible", "OpenAICompatible"),
    "llama_cpp": ("transforms.providers.llama_cpp", "LlamaCpp"),
}

#: The same for the batch APIs; a provider that is not here has none.
BATCH_APIS: Mapping[ProviderName, tuple[str, str]] = {
    "openai": ("transforms.providers.batch_openai", "OpenAIBatch"),
    "azure_openai": ("transforms.providers.batch_azure", "AzureBatch"),
    "anthropic": ("transforms.providers.batch_anthropic", "AnthropicBatch"),
    "openrouter": ("transforms.providers.batch_openrouter", "OpenRouterBatch"),
}


def make_provider(model: ModelSettings, schema: dict[str, Any] | None) -> Provider:
    """Return the adapter for a job's model.

    Args:
        model: the job's `model`.
        schema: the answer's JSON Schema, or None for free text.

    Raises:
        ConfigError: settings that the provider does not take; names the key and the cure.
    """
    module, name = PROVIDERS[model.provider]
    provider: Provider = getattr(import_module(module), name)(model, schema)
    return provider


def make_batch_api(model: ModelSettings, schema: dict[str, Any] | None, provider: Provider) -> BatchApi | None:  # noqa: ARG001 - the provider's bodies hold the schema
    """Return the adapter for the batch API of a job's model, or None where the provider has none.

    Args:
        model: the job's `model`.
        schema: the answer's JSON Schema, or None.
        provider: what `make_provider` made of the same two.

    Raises:
        ConfigError: settings that batches do not take; names the key and the cure.
    """
    if model.provider not in BATCH_APIS:
        return None
    module, name = BATCH_APIS[model.provider]
    api: BatchApi = getattr(import_module(module), name)(model, provider)
    return api
