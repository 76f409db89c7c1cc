"""Checks of model settings that need no network: every complaint names the key and the cure."""

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from transforms.records.errors import ConfigError
from transforms.records.settings import ModelSettings

#: Headers that carry a secret; they come from the environment, never from the job file (P9).
_SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "proxy-authorization", "cookie"})

#: Headers that the client writes itself, from the address and the body; others would break the request.
_CLIENT_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "content-type", "connection"})

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: Body fields that the job file sets elsewhere, or that would change what comes back.
_RESERVED: Mapping[str, str] = {
    "model": "set model.name",
    "messages": "set prompt.template",
    "input": "set prompt.template",
    "system": "set prompt.system",
    "instructions": "set prompt.system",
    "stream": "answers are read whole; remove it",
    "background": "answers are read at once; remove it",
    "n": "one answer is read per request; remove it",
}

#: Settings that only some providers know, with the providers that do.
_OWNERS: Mapping[str, Collection[str]] = {
    "deployment": ("azure_openai",),
    "api_version": ("azure_openai", "anthropic"),
    "routing": ("openrouter",),
    "gguf": ("llama_cpp",),
}


def check_settings(
    settings: ModelSettings, *, apis: Collection[str] = ("chat_completions",), auths: Collection[str] = ("bearer",)
) -> None:
    """Raise ConfigError for settings that the provider does not know or that can't work.

    Args:
        settings: the job's `model`.
        apis: values of model.api that the provider offers.
        auths: values of model.auth that the provider offers.
    """
    provider = settings.provider
    if settings.api not in apis:
        raise ConfigError(f"model.api: {provider} has no {settings.api} here; use {' or '.join(apis)}")
    if settings.auth is not None and settings.auth not in auths:
        raise ConfigError(f"model.auth: {provider} does not take {settings.auth}; use {' or '.join(auths)}")
    for key, owners in _OWNERS.items():
        if getattr(settings, key) is not None and provider not in owners:
            raise ConfigError(f"model.{key}: only for {' and '.join(owners)}; remove it or change model.provider")
    if settings.api_key_env is not None and settings.api_key_secret is not None:
        raise ConfigError("model.api_key_secret: says where the key is, and so does model.api_key_env; remove one")
    for name, value in settings.headers.items():
        _check_header(name, value)
    for key in settings.params.extra:
        if key in _RESERVED:
            raise ConfigError(f"model.params.extra.{key}: {_RESERVED[key]}")
    if settings.base_url is not None:
        _check_base_url(settings.base_url)


def _check_header(name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise ConfigError(f"model.headers: {name!r} is no header name; use letters, digits and -")
    if name.lower() in _SECRET_HEADERS:
        raise ConfigError(
            f"model.headers.{name}: secrets don't go in the job file; set model.api_key_env or model.api_key_secret"
        )
    if name.lower() in _CLIENT_HEADERS:
        raise ConfigError(f"model.headers.{name}: follows from the address and the body of each request; remove it")
    if _CONTROL.search(value):
        raise ConfigError(f"model.headers.{name}: holds a line break or another control character; write one line")


def _check_base_url(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"model.base_url: {base_url!r} is not an address ({error})") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"model.base_url: {base_url!r} must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "model.base_url: must hold no user or password; set model.api_key_env or model.api_key_secret"
        )
    if parts.query or parts.fragment:
        raise ConfigError("model.base_url: must end before the ? or #; an API version goes in model.api_version")
    for ending in ("/chat/completions", "/responses", "/messages"):
        if parts.path.rstrip("/").endswith(ending):
            raise ConfigError(f"model.base_url: give the address without {ending}; it is added")


def require_base_url(settings: ModelSettings, example: str) -> str:
    """Return the base URL without a trailing slash; ConfigError shows `example` when there is none."""
    if settings.base_url is None:
        raise ConfigError(f"model.base_url: {settings.provider} needs one, such as {example}")
    return settings.base_url.rstrip("/")


def key_source(settings: ModelSettings, usual_env: str | None) -> tuple[str | None, str | None]:
    """Return where the key is: (environment variable, secret), at most one of them; two None: no key is needed.

    Args:
        settings: the job's `model`.
        usual_env: the provider's usual variable, which counts where the job names neither.
    """
    if settings.api_key_secret is not None:
        return None, settings.api_key_secret
    return settings.api_key_env or usual_env, None


def refuse_param(settings: ModelSettings, name: str, reason: str) -> None:
    """Raise ConfigError when a parameter is set that the provider would answer with a 400."""
    if getattr(settings.params, name) is not None:
        raise ConfigError(f"model.params.{name}: {reason}")


def static_headers(settings: ModelSettings, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the headers of every request but the secret: ours, the provider's own, then the job's, in lower case."""
    headers = {"content-type": "application/json", "accept": "application/json", "user-agent": "rowbeam"}
    headers.update(own or {})
    headers.update({name.lower(): value for name, value in settings.headers.items()})
    return headers


def output_limit(body: Mapping[str, Any]) -> int | None:
    """Return the limit on output tokens that a request body sets, by whichever name, or None."""
    for key in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        value = body.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
