"""What all that speak OpenAI's HTTP dialect have in common: OpenAI, Azure, OpenRouter, compatible servers."""

from typing import Any, ClassVar

import orjson

from transforms.providers import chat_completions, responses_api
from transforms.providers.classify import ErrorWords, call_error, error_words, openai_kind, unreadable
from transforms.providers.headers import date_s, openai_limits
from transforms.providers.reading import parse_json
from transforms.providers.settings_check import key_source, output_limit, static_headers
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpRequest, HttpResponse, RateLimits, Reply
from transforms.records.request import Prompt
from transforms.records.settings import ModelSettings
from transforms.rules.native_schema import strict_schema


class OpenAIFamily:
    """A provider (see base.Provider) that speaks chat completions, and the Responses API where settings say so.

    Subclasses give the names, check the settings, and change what they say differently.

    Attributes:
        base_url: where the API begins; request() and probe() read it at each call.
    """

    name: str
    default_key_env: ClassVar[str | None] = None
    limit_key: ClassVar[str] = "max_completion_tokens"
    request_id_headers: ClassVar[tuple[str, ...]] = ("x-request-id",)

    #: The provider's own address, where it has one.
    own_address: ClassVar[str] = ""

    def __init__(self, settings: ModelSettings, schema: dict[str, Any] | None, base_url: str, model: str) -> None:
        self.request_model = model
        self.price_model = settings.name
        self.key_env, self.key_secret = key_source(settings, self.default_key_env)
        self.base_url = base_url
        self._api = settings.api
        self._headers = static_headers(settings, self.own_headers())
        self._static = self.static_body(settings, schema)
        self.max_output_tokens = output_limit(self._static)

    def own_headers(self) -> dict[str, str]:
        """Return headers of this provider's own, in lower case."""
        return {}

    def native_schema(self, schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return the schema in the provider's form and whether it is strict: else the original, not strict."""
        strict = strict_schema(schema)
        return (schema, False) if strict is None else (strict, True)

    def static_body(self, settings: ModelSettings, schema: dict[str, Any] | None) -> dict[str, Any]:
        """Return what all requests share."""
        wire = responses_api.schema_format if settings.api == "responses" else chat_completions.schema_format
        native = None if schema is None else self.native_schema(schema)
        schema_part = None if native is None else wire(native[0], strict=native[1])
        if settings.api == "responses":
            return responses_api.static_body(settings, self.request_model, schema_part)
        return chat_completions.static_body(settings, self.request_model, schema_part, self.limit_key)

    def identity(self) -> dict[str, Any]:
        """Return provider, API and body without prompt, and the address when it is not the provider's own.

        What a stand-in or a gateway answered is not what the provider would answer.
        """
        where = {} if self.base_url in ("", self.own_address) else {"base_url": self.base_url}
        return {"provider": self.name, "api": self._api, "body": self._static, **where}

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """Return the JSON body of a request."""
        if self._api == "responses":
            return responses_api.fill(self._static, prompt)
        return chat_completions.fill(self._static, prompt)

    def url(self) -> str:
        """Return where requests go."""
        return self.base_url + (responses_api.PATH if self._api == "responses" else chat_completions.PATH)

    def auth_headers(self, key: str | None) -> dict[str, str]:
        """Return the headers that carry the key."""
        return {} if key is None else {"authorization": f"Bearer {key}"}

    def all_headers(self, key: str | None) -> dict[str, str]:
        """Return every header of a request with a JSON body, the key in its place."""
        return {**self._headers, **self.auth_headers(key)}

    def request(self, body: dict[str, Any], key: str | None) -> HttpRequest:
        """Return the POST that carries `body`."""
        return HttpRequest("POST", self.url(), self.all_headers(key), orjson.dumps(body))

    def probe(self, key: str | None) -> HttpRequest | None:
        """Return a GET of the models list."""
        return HttpRequest("GET", self.base_url + "/models", self.all_headers(key), b"")

    def read(self, response: HttpResponse) -> Reply | CallError:
        """Classify a response. An error object counts whatever the status is; never raises."""
        data = parse_json(response.body)
        if 200 <= response.status < 300:
            if self._api == "responses":
                # A Response object carries its own `error`, beside its status.
                if not (isinstance(data, dict) and "output" not in data and data.get("error")):
                    return responses_api.read_answer(data, response)
            elif not (isinstance(data, dict) and (data.get("error") or data.get("object") == "error")):
                return self.read_answer(data, response)
        return self.read_error(data, response)

    def read_answer(self, data: Any, response: HttpResponse) -> Reply | CallError:
        """Read the 2xx body of a chat completion."""
        return chat_completions.read_answer(data, response)

    def read_error(self, data: Any, response: HttpResponse) -> CallError:
        """Read a body that holds an error, or anything that came with a status other than 2xx."""
        error = error_words(data)
        if error is None:
            return unreadable(response, data)
        status = response.status
        if status < 300 and error.status is not None:
            status = error.status
        return call_error(
            self.kind(status, error, data),
            self.message(error, data) or f"HTTP {response.status}: {error.name}",
            response,
            code=error.name,
            limits=self.rate_limits_at(response, date_s(response.headers)),
        )

    def kind(self, status: int, error: ErrorWords, data: Any) -> FailureKind:  # noqa: ARG002 - subclasses look at data
        """Return the kind of an error."""
        return openai_kind(status, error)

    def message(self, error: ErrorWords, data: Any) -> str | None:  # noqa: ARG002 - subclasses look at data
        """Return an error's words for people."""
        return error.message

    def request_id(self, response: HttpResponse) -> str | None:
        """Return the first id header that is there."""
        for header in self.request_id_headers:
            value = response.headers.get(header)
            if value:
                return value
        return None

    def rate_limits(self, response: HttpResponse, now_s: float) -> RateLimits | None:
        """Return what the x-ratelimit headers say."""
        return self.rate_limits_at(response, now_s)

    def rate_limits_at(self, response: HttpResponse, now_s: float | None) -> RateLimits | None:
        """Return the same for a clock that may be unknown."""
        return openai_limits(response.headers, now_s)
