"""The job as checked data (DESIGN section 5). Frozen; nothing below the pipelines changes it.

`pipelines/job.py` reads YAML, overrides and environment into these models and turns pydantic's errors into one
line each. Secrets are never held here, only the names of environment variables.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from transforms.records.bigquery_settings import InputSource, SinkSettings

ProviderName = Literal["openai", "azure_openai", "anthropic", "openrouter", "openai_compatible", "llama_cpp"]
ColumnType = Literal["string", "integer", "float", "boolean", "date", "timestamp", "decimal", "json"]
SecretName = Annotated[
    str, StringConstraints(pattern=r"^projects/[^/\s]+/secrets/[A-Za-z0-9_-]+/versions/[A-Za-z0-9_-]+$")
]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_ADDRESS = re.compile(r"(?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> object:
    """Take durations such as 500ms, 60s, 15m, 24h; a plain number is seconds and left to pydantic."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match[1]) * _UNIT_SECONDS[match[2]]
    if isinstance(value, bool) or (isinstance(value, str) and not value.strip().replace(".", "", 1).isdigit()):
        msg = "is no duration; write seconds, or a number with its unit, such as 500ms, 60s, 15m, 24h"
        raise ValueError(msg)
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]


def _usd(value: object) -> object:
    """Take a plain number of US dollars, also as text; what is too large or too small is left to pydantic."""
    try:
        is_amount = not isinstance(value, bool) and Decimal(str(value)).is_finite()
    except InvalidOperation:
        is_amount = False
    if not is_amount:
        msg = "is no amount of US dollars; write a plain number, such as 25 or 0.50"
        raise ValueError(msg)
    return value


def _address(value: object) -> object:
    """Take host:port; an IPv6 address is in brackets."""
    if not (isinstance(value, str) and _ADDRESS.fullmatch(value)):
        msg = "is no address; write host:port, such as ratelimit.internal:8081"
        raise ValueError(msg)
    return value


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class InputSettings(InputSource, _Settings):
    """Where the rows are: exactly one of path and bigquery. `format` None: by the suffix (.csv .jsonl .parquet ..., also .gz).

    columns: the names of the columns of CSV files without a header line (header: false).
    """

    format: Literal["csv", "jsonl", "parquet"] | None = None
    key: list[str] = []
    types: dict[str, ColumnType] = {}
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    header: bool = True
    columns: list[str] | None = None

    @model_validator(mode="after")
    def _header_or_columns(self) -> Self:
        if self.header == bool(self.columns):
            msg = "needs columns exactly when header is false: the columns' names, in order"
            raise ValueError(msg)
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            msg = "has a name twice in columns"
            raise ValueError(msg)
        if self.delimiter in {'"', "\r", "\n", "\0"}:
            msg = "has a delimiter that can't be one; use a comma, a semicolon, a tab or the like"
            raise ValueError(msg)
        return self


class PromptSettings(_Settings):
    """Templates, given as text or as a file beside the job file (exactly one of template and template_file)."""

    system: str | None = None
    system_file: str | None = None
    template: str | None = None
    template_file: str | None = None
    lookup: dict[Identifier, str] = {}

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.template is None) == (self.template_file is None):
            msg = "give exactly one of template and template_file"
            raise ValueError(msg)
        if self.system is not None and self.system_file is not None:
            msg = "give system or system_file, not both"
            raise ValueError(msg)
        return self


class AnswerSettings(_Settings):
    """The answer's column and type. Neither schema nor python: the answer is plain text."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    field: Identifier
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    python: str | None = None
    flatten: bool = False
    repair: bool = True

    @model_validator(mode="after")
    def _one_type(self) -> Self:
        if self.json_schema is not None and self.python is not None:
            msg = "give schema or python, not both"
            raise ValueError(msg)
        return self


class ModelParams(_Settings):
    """Sampling and length. What is not set is not sent. `extra` is merged into the request body as it is."""

    max_output_tokens: Annotated[int, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: list[str] | None = None
    reasoning_effort: str | None = None
    extra: dict[str, Any] = {}


class ModelSettings(_Settings):
    """Which model, where, and how to sign in.

    Attributes:
        api: openai, azure_openai, openrouter, openai_compatible: chat_completions (default) or responses (OpenAI, Azure).
        base_url: replaces the provider's own; required for azure_openai and openai_compatible.
        api_key_env: name of the variable holding the key; None takes the provider's usual one (none for local servers).
        api_key_secret: Google Secret Manager: the secret's version that holds the key; then no variable is looked at.
        api_version: Azure: a date, or v1 (default). Anthropic: 2023-06-01 or 2026-10-21 (default).
        deployment: Azure: the deployment to call; `name` is then the model behind it (for prices).
        batch_deployment: Azure: the Global-Batch or Data Zone Batch deployment that batches name.
        auth: azure_openai: api_key (default) or bearer. anthropic: bearer (default) or x_api_key.
        headers: extra request headers, not secret.
        routing: OpenRouter's `provider` object, sent as it is.
        gguf: llama_cpp: path of a GGUF file; None takes the installed SmolLM2.
        context_size, slots: llama_cpp: tokens of context per slot, and how many answers it works on at once.
        allow_unlisted: a model that the model manifest does not know, or knows to refuse a parameter, is a warning.
        manifest: a YAML file of model entries that extend or replace the built-in manifest's.
        entry: what this job knows better about its model: keys of a manifest entry, laid over the one found.
    """

    provider: ProviderName
    name: str
    api: Literal["chat_completions", "responses"] = "chat_completions"
    base_url: str | None = None
    api_key_env: str | None = None
    api_key_secret: SecretName | None = None
    api_version: str | None = None
    deployment: str | None = None
    batch_deployment: str | None = None
    auth: Literal["api_key", "bearer", "x_api_key"] | None = None
    headers: dict[str, str] = {}
    routing: dict[str, Any] | None = None
    params: ModelParams = ModelParams()
    gguf: str | None = None
    context_size: Annotated[int, Field(ge=256)] = 2048
    slots: Annotated[int, Field(ge=1, le=64)] = 4
    allow_unlisted: bool = False
    manifest: str | None = None
    entry: dict[str, Any] | None = None


class BatchingSettings(_Settings):
    """How requests travel together. group_size: requests per group; shards: independent groupings (stable by id).

    Of the provider's batch API (modes provider_batch_api and auto):

    Attributes:
        threshold: auto: fewer fresh requests than this go real time.
        max_requests: requests of one batch, at most; the provider's own limit counts too.
        poll_interval: seconds between the first status checks; they grow to 15 minutes.
        settle: seconds that a listing is given to show a batch whose create got no reply, before it counts as absent.
        deadline: seconds from submission until the batch is given up; on_deadline: what its unfinished requests do then.
        retry_failed: what requests do that a batch ended without answering.
        allowed_providers: providers whose batch API may be used; None: every one that has one.
        enqueued_tokens: prompt tokens that may wait in unfinished batches at a time; None: no limit known.
        batches_per_hour: creates within an hour.
        detach: submit, collect what is done, and end the run with the rest pending.
    """

    mode: Literal["per_request", "serial_bundle", "provider_batch_api", "auto"] = "per_request"
    threshold: Annotated[int, Field(ge=1)] = 20
    max_requests: Annotated[int, Field(ge=1)] = 50_000
    poll_interval: Seconds = 30.0
    settle: Seconds = 120.0
    deadline: Seconds = 86_400.0
    on_deadline: Literal["real_time", "detach", "dead_letter"] = "real_time"
    retry_failed: Literal["real_time", "batch", "none"] = "real_time"
    allowed_providers: list[ProviderName] | None = None
    enqueued_tokens: Annotated[int, Field(ge=1)] | None = None
    batches_per_hour: Annotated[int, Field(ge=1)] = 2000
    detach: bool = False
    group_size: Annotated[int, Field(ge=1, le=100_000)] = 500
    bundle_size: Annotated[int, Field(ge=1, le=8)] = 8
    shards: Annotated[int, Field(ge=1, le=1024)] = 4


class EnvoySettings(_Settings):
    """A rate limit service that speaks Envoy's protocol, version 3.

    Attributes:
        address: host:port, without TLS.
        domain: which of the service's configurations.
        descriptors: what a call is counted under: each a set of keys with their values, in the configuration's order.
        timeout: seconds for one question.
    """

    address: Annotated[str, BeforeValidator(_address)]
    domain: Annotated[str, StringConstraints(min_length=1)]
    descriptors: Annotated[list[Annotated[dict[str, str], Field(min_length=1)]], Field(min_length=1)]
    timeout: Seconds = 5.0


class RateLimiterSettings(_Settings):
    """A service outside of the run that gives leave to each call, beside the pool's own limits."""

    envoy: EnvoySettings


class PoolSettings(_Settings):
    """Limits on real-time calls. timeout: one try, seconds; deadline: a request with all its tries, seconds.

    max_in_flight, requests_per_minute, tokens_per_minute: of the whole job, in however many processes it runs.
    """

    max_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 500
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    timeout: Seconds = 60.0
    deadline: Seconds = 900.0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    breaker_after: Annotated[int, Field(ge=1)] = 25
    give_up_after: Seconds = 300.0
    rate_limiter: RateLimiterSettings | None = None


class BudgetSettings(_Settings):
    """What the job may spend. Nothing is sent whose worst case does not fit into what is left (P6).

    Attributes:
        max_usd: US dollars, at most 10**12: more is no limit of anything; None: no limit.
        per: output: over all runs of the job's output together; run: each run anew.
    """

    max_usd: Annotated[Decimal, BeforeValidator(_usd), Field(gt=0, le=10**12)] | None = None
    per: Literal["output", "run"] = "output"


class AuditSettings(_Settings):
    """payloads: what the request and response columns hold; redact: input columns whose values they never show."""

    payloads: Literal["full", "hash", "none"] = "full"
    redact: list[str] = []


class LimitSettings(_Settings):
    """max_dead_letter_ratio: share of the rows that may be dead-lettered before the exit code is 1."""

    max_dead_letter_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05


class Job(_Settings):
    """One job: rows in, a question about each, enriched rows out."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    input: InputSettings
    output: str
    prompt: PromptSettings
    answer: AnswerSettings
    model: ModelSettings
    batching: BatchingSettings = BatchingSettings()
    pool: PoolSettings = PoolSettings()
    budget: BudgetSettings = BudgetSettings()
    on_failure: Literal["dead_letter", "keep"] = "dead_letter"
    audit: AuditSettings = AuditSettings()
    sinks: SinkSettings = SinkSettings()
    limits: LimitSettings = LimitSettings()
