"""Model settings that can't work are refused before anything is sent, with the key's path and the cure."""

import pickle
from types import SimpleNamespace

import pytest

from transforms._worker import read_key
from transforms.providers import PROVIDERS, make_provider
from transforms.records.errors import ConfigError
from transforms.records.settings import ModelParams, ModelSettings

AZURE = {"base_url": "https://res.openai.azure.com", "deployment": "d"}
LOCAL = {"base_url": "http://localhost:8000/v1"}
GOOD = {
    "openai": {},
    "azure_openai": AZURE,
    "anthropic": {},
    "openrouter": {},
    "openai_compatible": LOCAL,
    "llama_cpp": {},
}


def make(provider, schema=None, params=None, **changes):
    """Return the adapter for a job's model."""
    return make_provider(
        ModelSettings(provider=provider, name="m", params=ModelParams(**(params or {})), **changes), schema
    )


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_can_be_made_and_pickled(name):
    """Each name of the job file has an adapter, which travels without a key."""
    made = make(name, **GOOD[name])
    assert pickle.loads(pickle.dumps(made)).identity() == made.identity()  # noqa: S301 - our own bytes
    assert made.identity()["provider"] == made.name


BAD = [
    pytest.param("azure_openai", {"deployment": "d"}, "model.base_url: azure_openai needs one", id="azure-url"),
    pytest.param("azure_openai", AZURE | {"deployment": None}, "model.deployment: ", id="azure-deployment"),
    pytest.param("azure_openai", AZURE | {"api_version": "newest"}, "model.api_version: ", id="azure-version"),
    pytest.param(
        "azure_openai",
        AZURE | {"api_version": "2024-10-21", "api": "responses"},
        "model.api_version: 2024-10-21 has no Responses API",
        id="azure-responses",
    ),
    pytest.param("azure_openai", AZURE | {"auth": "x_api_key"}, "model.auth: ", id="azure-auth"),
    pytest.param("openai", {"auth": "api_key"}, "model.auth: ", id="openai-auth"),
    pytest.param("anthropic", {"auth": "api_key"}, "model.auth: ", id="anthropic-auth"),
    pytest.param("openai_compatible", {}, "model.base_url: openai_compatible needs one", id="compatible-url"),
    *(
        pytest.param(name, GOOD[name] | {"api": "responses"}, f"model.api: {name} has no responses", id=f"{name}-api")
        for name in ("anthropic", "openrouter", "openai_compatible", "llama_cpp")
    ),
    pytest.param("anthropic", {"api_version": "2024-01-01"}, "model.api_version: anthropic has no", id="version"),
    pytest.param("anthropic", {"params": {"temperature": 0}}, "model.params.temperature: ", id="temperature"),
    pytest.param("anthropic", {"params": {"top_p": 0.5}}, "model.params.top_p: ", id="top-p"),
    pytest.param("anthropic", {"params": {"extra": {"top_k": 5}}}, "model.params.extra.top_k: ", id="top-k"),
    pytest.param("anthropic", {"params": {"seed": 1}}, "model.params.seed: ", id="anthropic-seed"),
    pytest.param(
        "anthropic", {"params": {"seed": 1}, "api_version": "2023-06-01"}, "model.params.seed: ", id="older-seed"
    ),
    pytest.param("openai", {"params": {"stop": list("abcde")}}, "model.params.stop: ", id="stops"),
    pytest.param("azure_openai", AZURE | {"params": {"stop": list("abcde")}}, "model.params.stop: ", id="azure-stops"),
    pytest.param("openai", {"params": {"seed": 1}, "api": "responses"}, "model.params.seed: ", id="responses-seed"),
    pytest.param("openai", {"params": {"stop": ["a"]}, "api": "responses"}, "model.params.stop: ", id="responses-stop"),
    pytest.param("openai", {"deployment": "d"}, "model.deployment: only for azure_openai", id="stray-deployment"),
    pytest.param("openai", {"api_version": "v1"}, "model.api_version: only for", id="stray-version"),
    pytest.param("openai", {"routing": {}}, "model.routing: only for openrouter", id="stray-routing"),
    pytest.param("openai", {"gguf": "x.gguf"}, "model.gguf: only for llama_cpp", id="stray-gguf"),
    pytest.param("openai", {"headers": {"Authorization": "x"}}, "model.headers.Authorization: ", id="secret-header"),
    pytest.param(
        "openai", {"headers": {"X-A": "a\r\nX-B: b"}}, "model.headers.X-A: holds a line break", id="header-crlf"
    ),
    pytest.param("openai", {"headers": {"X-A": "a\0"}}, "model.headers.X-A: holds a line break", id="header-nul"),
    pytest.param("openai", {"headers": {"X-A: b\r\nX-B": "b"}}, "model.headers: 'X-A", id="header-name"),
    pytest.param("openai", {"headers": {"": "b"}}, "model.headers: '' is no header name", id="header-no-name"),
    *(
        pytest.param("openai", {"headers": {name: "1"}}, f"model.headers.{name}: ", id=f"header-{name}")
        for name in ("Host", "content-length", "Transfer-Encoding", "Content-Type", "Connection")
    ),
    *(
        pytest.param("openai", {"params": {"extra": {key: 1}}}, f"model.params.extra.{key}: ", id=f"extra-{key}")
        for key in ("model", "messages", "input", "stream", "n", "background", "system", "instructions")
    ),
    *(
        pytest.param("openai_compatible", {"base_url": url}, f"model.base_url: {text}", id=url)
        for url, text in {
            "localhost:8000": "'localhost:8000' must begin with http",
            "http://": "'http://' must begin with http",
            "http://h:port/v1": "'http://h:port/v1' is not an address",
            "http://[h/v1": "'http://[h/v1' is not an address",
            "http://user:pw@h/v1": "must hold no user or password",
            "http://h/v1?a=b": "must end before the",
            "http://h/v1/chat/completions": "give the address without /chat/completions",
        }.items()
    ),
]


@pytest.mark.parametrize(("name", "changes", "beginning"), BAD)
def test_settings_that_cannot_work_are_refused(name, changes, beginning):
    """The error begins with the key that the person must change."""
    with pytest.raises(ConfigError) as caught:
        make(name, **changes)
    assert str(caught.value).startswith(beginning)


def test_headers_of_ones_own_are_taken():
    """What harms nothing is sent."""
    headers = {"X-Team": "a b; c=ü"}
    assert make("openai", headers=headers).name == "openai"


@pytest.mark.parametrize("key", ["sk-a\r\nX-Evil: 1", "sk-a\0b", "sk-\u201ca\u201d"])
def test_a_key_that_would_break_the_request_is_refused_and_not_shown(monkeypatch, key):
    """Before the run, with the variable's name."""
    provider = SimpleNamespace(key_env="SOME_API_KEY", key_secret=None)
    monkeypatch.setattr("os.environ", {"SOME_API_KEY": key})
    with pytest.raises(ConfigError, match="SOME_API_KEY") as caught:
        read_key(provider)
    assert "sk-" not in str(caught.value)
    monkeypatch.setattr("os.environ", {"SOME_API_KEY": " sk-abc\n"})
    assert read_key(provider) == "sk-abc"


def test_a_password_in_an_address_is_not_repeated():
    """The complaint itself must not write the secret (P9)."""
    with pytest.raises(ConfigError) as caught:
        make("openai_compatible", base_url="http://user:hunter2@h/v1")
    assert "hunter2" not in str(caught.value)


def test_a_schema_that_anthropic_cannot_compile_is_refused():
    """The schema is part of what is checked before launch."""
    with pytest.raises(ConfigError, match=r"^answer\.schema\.properties\.a: "):
        make("anthropic", {"type": "object", "properties": {"a": {}}})
