"""What the sandbox's parts hand each other: a question read from a request, an answer to shape, a refusal."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from pipelines.sandbox.answers import Schema
from pipelines.sandbox.limits import Verdict

#: A name that no provider has, for rehearsing a wrong model or deployment name.
NO_SUCH_MODEL = "no-such-model"


class Problem(StrEnum):
    """Why a request is turned away; each provider has its own words and status for it."""

    MISSING_KEY = "missing_key"
    BAD_KEY = "bad_key"
    NO_CREDIT = "no_credit"
    INVALID = "invalid"
    NO_SUCH_MODEL = "no_such_model"
    NO_SUCH_PATH = "no_such_path"
    NO_SUCH_THING = "no_such_thing"
    FORBIDDEN = "forbidden"
    RATE_LIMIT = "rate_limit"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    PROMPT_FILTERED = "prompt_filtered"


@dataclass(frozen=True, slots=True)
class Refused:
    """A request turned away, before it is put into a provider's words.

    Attributes:
        message, param, code: for INVALID: what is wrong with which field; message also for NO_SUCH_PATH and
            NO_SUCH_THING (a file or batch that is not there).
        model: what was asked for, as far as it was read.
        wait_s: for RATE_LIMIT: seconds until it may be tried again.
        variant: picks among a provider's several forms of one refusal.
    """

    problem: Problem
    message: str = ""
    param: str | None = None
    code: str | None = None
    model: str = ""
    wait_s: float = 0.0
    variant: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a valid request asks for.

    Attributes:
        schema: the JSON Schema of the answer; None asks for plain text.
        max_tokens: the most tokens the answer may have; None for no limit.
        input_tokens: the prompt's size, about a quarter of its characters.
    """

    model: str
    schema: Schema | None
    max_tokens: int | None
    input_tokens: int


class Finish(StrEnum):
    """How an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    REFUSAL = "refusal"
    FILTERED = "filtered"
    EMPTY = "empty"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, before it is put into a provider's shape.

    Attributes:
        id: 24 hexadecimal digits, unique per exchange.
        created: Unix seconds.
        variant: picks among the forms a provider has for one finish.
    """

    id: str
    created: int
    model: str
    text: str
    finish: Finish
    input_tokens: int
    output_tokens: int
    variant: int


class Api(Protocol):
    """A request and response format: chat completions, responses, messages."""

    has_error_in_200: bool

    def read(self, body: Mapping[str, Any], model: str | None) -> Ask | Refused:
        """Return what the body asks for, or why the provider answers 400. `model`: given by the path (Azure)."""
        ...

    def reply(self, completion: Completion) -> dict[str, Any]:
        """Return the body of a 200."""
        ...


class House(Protocol):
    """A provider: how it knows its callers, words its refusals and dresses its replies.

    Attributes:
        window_s: seconds of the request limit that may be spent at once.
        filters_prompts: it refuses some prompts with a 400 before the model sees them.
        has_error_in_200: it may answer 200 and put an error into the body.
    """

    name: str
    window_s: float
    filters_prompts: bool
    has_error_in_200: bool

    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the caller's key, or None."""
        ...

    def objection(self, headers: Mapping[str, str], query: str, body: Mapping[str, Any]) -> Refused | None:
        """Return what is wrong with version headers, query or version-dependent fields, or None."""
        ...

    def refuse(self, refused: Refused, request_id: str) -> tuple[int, dict[str, Any]]:
        """Return status and body of a refusal."""
        ...

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the headers every reply carries."""
        ...

    def limit_headers(self, verdict: Verdict, now_s: float) -> dict[str, str]:
        """Return the rate-limit headers. now_s: Unix seconds."""
        ...

    def dress(self, body: dict[str, Any], completion: Completion) -> dict[str, Any]:
        """Return the body with what this provider adds to the format."""
        ...

    def models(self, query: str) -> dict[str, Any]:
        """Return the body of its models list; query: the URL's, for providers that page."""
        ...


def text_length(value: Any) -> int:
    """Return the characters of text in a prompt, whether string, message list or content parts."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(text_length(part) for part in value)
    if isinstance(value, dict):
        return text_length(value.get("text")) + text_length(value.get("content"))
    return 0


def tokens_of(characters: int) -> int:
    """Return the tokens that so many characters come to: a quarter, at least one."""
    return max(1, (characters + 3) // 4)


def bearer(headers: Mapping[str, str]) -> str | None:
    """Return the key of an Authorization header, or None."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def bad_limit(value: Any) -> bool:
    """Tell whether a token limit is given and is no positive integer."""
    return value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1)
