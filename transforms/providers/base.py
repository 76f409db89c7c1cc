"""The seam between the pool and a provider: how a prompt becomes HTTP and HTTP becomes a reply.

A provider is pure: it builds requests and reads responses, and never makes a connection. Adding one is a file
with a class that satisfies `Provider`, and a line in `transforms/providers/__init__.py`.
"""

from typing import Any, Protocol

from transforms.records.reply import CallError, HttpRequest, HttpResponse, RateLimits, Reply
from transforms.records.request import Prompt


class Provider(Protocol):
    """What the pool needs of a provider. Built from ModelSettings and the answer's JSON Schema (or None).

    Attributes:
        name: OpenTelemetry's gen_ai.provider.name (openai, azure.ai.openai, anthropic, openrouter, llama_cpp,
            or openai_compatible).
        request_model: what is asked for on the wire (on Azure the deployment).
        price_model: the model name to look prices up by.
        max_output_tokens: the limit sent, or None.
        key_env: the environment variable that holds the key, or None when no key is needed, or key_secret names it.
        key_secret: the Secret Manager version that holds the key, or None.
        base_url: where the API is.
    """

    name: str
    request_model: str
    price_model: str
    max_output_tokens: int | None
    key_env: str | None
    key_secret: str | None
    base_url: str

    def identity(self) -> dict[str, Any]:
        """Everything but the prompt that can change an answer.

        Provider, API, body without prompt, and the base URL when it is not the provider's own. Never holds a key. Two jobs with equal identity() and equal prompts share request ids.
        """
        ...

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """Return the JSON body of a request, in the provider's own shape."""
        ...

    def request(self, body: dict[str, Any], key: str | None) -> HttpRequest:
        """Return the HTTP request that carries `body`; `key` is the secret, or None."""
        ...

    def read(self, response: HttpResponse) -> Reply | CallError:
        """Classify a response. Never raises, whatever the bytes are."""
        ...

    def request_id(self, response: HttpResponse) -> str | None:
        """Return the provider's id of this exchange, from headers or body."""
        ...

    def rate_limits(self, response: HttpResponse, now_s: float) -> RateLimits | None:
        """Return what the rate-limit headers say; now_s is Unix time (some resets are absolute)."""
        ...

    def probe(self, key: str | None) -> HttpRequest | None:
        """Return a free request that proves address and key work (the models list), or None if there is none."""
        ...
