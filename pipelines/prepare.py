"""Everything that is checked and settled before a run begins: inputs, templates, schema, provider, columns.

Sends nothing and spends nothing. What comes out is frozen, picklable and holds no secret; the pipeline, the plan
and the tests are all built from it.
"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from pipelines.batch_check import check_batching, find_batch_api
from pipelines.job import LoadedJob, check_columns, resolve_answer_schema
from pipelines.model_catalog import settle_model
from transforms.providers import make_provider
from transforms.records.batch import BatchLimits
from transforms.records.errors import ConfigError
from transforms.records.model_entry import ModelEntry, ModelFinding
from transforms.records.run import CallSettings
from transforms.records.settings import BatchingSettings, InputSettings, Job
from transforms.rules.answer import AnswerReader
from transforms.rules.answer_columns import AnswerColumns
from transforms.rules.fingerprint import RequestIdentity
from transforms.rules.lookup import parse_lookup
from transforms.rules.place import Place, is_same_place
from transforms.rules.prompt import PromptTemplate
from transforms.rules.route import is_batch_allowed
from transforms.storage.batch_ledger import open_entries
from transforms.storage.bigquery_fill import check_tables
from transforms.storage.inputs import InputFile, InputSchema, expand, input_schema
from transforms.storage.ledger import segments
from transforms.storage.objects import join, read_bytes
from transforms.storage.runs import RunFolder
from transforms.storage.tables import enriched_schema


@dataclass(frozen=True)
class PreparedJob:
    """A job ready to run: checked, with a run id and the ledger's segments as they were when it began.

    Attributes:
        provider_address: the provider's name, and where its API is.
        open_batches: keys of the batches of earlier runs that are in flight at this provider.
        batch_limits: of one batch of the provider's batch API; None where the job can use none, and then
            no_batch_reason says why, in one clause.
        shared_limits: other processes may make calls of this run too.
        model_entry: what the model manifest knows of the model, the job's own entry laid over it; None: nothing.
        model_warnings: what the job's owner should know about the model before anything is spent.
    """

    job: Job
    job_sha256: str
    run_id: str
    run: RunFolder
    ledger: str
    segments: list[str]
    files: list[InputFile]
    input_schema: InputSchema
    template: PromptTemplate
    answer_schema: dict[str, Any] | None
    provider_name: str
    request_model: str
    price_model: str
    max_output_tokens: int | None
    identity: RequestIdentity
    reader: AnswerReader
    columns: AnswerColumns
    enriched_schema: pa.Schema
    batch_limits: BatchLimits | None
    no_batch_reason: str | None
    provider_address: Place
    open_batches: list[str] = field(default_factory=list)
    dry_run: bool = False
    shared_limits: bool = True
    model_entry: ModelEntry | None = None
    model_warnings: list[ModelFinding] = field(default_factory=list)

    @property
    def input(self) -> InputSettings:
        """The job's input settings."""
        return self.job.input

    @property
    def batching(self) -> BatchingSettings:
        """How requests travel together."""
        return self.job.batching

    @property
    def by_batch(self) -> bool:
        """Whether fresh requests may go by the provider's batch API, as far as settings say."""
        batching = self.job.batching
        is_meant = batching.mode in ("auto", "provider_batch_api")
        return is_meant and self.batch_limits is not None and is_batch_allowed(batching, self.job.model.provider)

    @property
    def max_batch_requests(self) -> int:
        """Requests of one batch, by the provider's limit and the job's."""
        most = self.job.batching.max_requests
        return most if self.batch_limits is None else min(most, self.batch_limits.max_requests)

    @property
    def repair(self) -> bool:
        """Whether an invalid answer is asked for once more."""
        return self.job.answer.repair

    @property
    def keep(self) -> bool:
        """Whether failed rows also appear among the enriched ones."""
        return self.job.on_failure == "keep"

    @property
    def redact(self) -> list[str]:
        """Columns whose values audit never shows."""
        return self.job.audit.redact

    @property
    def enriched_format(self) -> Literal["parquet", "jsonl"]:
        """Parquet or jsonl; what goes to BigQuery is Parquet first."""
        return "jsonl" if self.job.sinks.enriched == "jsonl" else "parquet"

    @property
    def call_settings(self) -> CallSettings:
        """What workers need to make calls."""
        job = self.job
        return CallSettings(
            self.run_id,
            self.ledger,
            job.model,
            self.answer_schema,
            job.pool,
            job.batching,
            job.audit,
            self.dry_run,
            shared_limits=self.shared_limits,
            budget=job.budget,
            output_limit=None if self.model_entry is None else self.model_entry.max_output_tokens,
        )


def prepare(loaded: LoadedJob, run_id: str) -> PreparedJob:
    """Check a job against its inputs and settle everything a run needs.

    Raises:
        ConfigError: the job can't work: a column, a template, a schema or a model setting is wrong, or its model is
            not known or can't do what the job asks.
        InputError: an input can't be read, or a glob matches nothing.
    """
    job = loaded.job
    files = expand(job.input, loaded.folder)
    schema = input_schema(files, job.input)
    check_columns(job, schema.names, loaded.path)
    template = load_template(job)
    template.check(schema.names)
    answer_schema = resolve_answer_schema(job, loaded.folder, loaded.path)
    provider = make_provider(job.model, answer_schema)
    entry, warnings = settle_model(
        job, has_schema=answer_schema is not None, max_output_tokens=provider.max_output_tokens
    )
    batch_api, no_batch_reason = find_batch_api(job, answer_schema, provider)
    if entry is not None and entry.batch is False:
        batch_api, no_batch_reason = None, f"model.entry: {entry.name} is not for the batch API of {job.model.provider}"
    check_batching(job, batch_api is not None)
    flatten, keep = job.answer.flatten, job.on_failure == "keep"
    columns = AnswerColumns(
        job.answer.field, answer_schema, template, flatten=flatten, keep=keep, row_id=job.sinks.enriched == "bigquery"
    )
    columns.check(schema.names)
    enriched = enriched_schema(schema.arrow, columns)
    check_tables(job.sinks, enriched, job.answer.field)
    ledger = join(job.output, "ledger")
    return PreparedJob(
        job=job,
        job_sha256=loaded.sha256,
        run_id=run_id,
        run=RunFolder(job.output, run_id),
        ledger=ledger,
        segments=segments(ledger, exclude_run=run_id),
        files=files,
        input_schema=schema,
        template=template,
        answer_schema=answer_schema,
        provider_name=provider.name,
        request_model=provider.request_model,
        price_model=provider.price_model,
        max_output_tokens=provider.max_output_tokens,
        identity=RequestIdentity(provider.identity()),
        reader=AnswerReader(answer_schema),
        columns=columns,
        enriched_schema=enriched,
        batch_limits=None if batch_api is None else batch_api.limits,
        no_batch_reason=no_batch_reason,
        provider_address=(provider.name, provider.base_url),
        model_entry=entry,
        model_warnings=warnings,
    )


def list_in_flight(job: PreparedJob) -> list[str]:
    """Return the keys of the batches that earlier runs have in flight at this very provider and address, sorted.

    What is in flight elsewhere (a rehearsal's, or the real provider's while this is a rehearsal) is not this run's
    to ask about: there nobody would know it, and its results would be given up for lost.

    Raises:
        ConfigError: there are such batches, and with these settings nobody can ask for them.
    """
    staged = [entry.staged for entry in open_entries(job.ledger)]
    keys = sorted(
        one.batch_key for one in staged if is_same_place((one.provider_name, one.address), job.provider_address)
    )
    if keys and job.batch_limits is None:
        raise _unreachable(job, len(keys))
    return keys


def _unreachable(job: PreparedJob, count: int) -> ConfigError:
    """Return the refusal of a job that would pay twice for what its own batches are asked already."""
    key, colon, _ = (job.no_batch_reason or "").partition(": ")
    batches = "1 batch of an earlier run is" if count == 1 else f"{count:,} batches of earlier runs are"
    return ConfigError(
        f"{key if colon else 'model.provider'}: {batches} in flight at {job.provider_name} and out of reach "
        "with this setting, so the same requests would be paid for twice; put it back as it was until all is "
        f"collected (rowbeam batches {shlex.quote(job.job.output)} shows it)"
    )


def load_template(job: Job) -> PromptTemplate:
    """Read the job's templates and lookup files, and compile them.

    Raises:
        ConfigError: a template or lookup file can't be read, or does not parse.
    """
    prompt = job.prompt
    template = (
        prompt.template if prompt.template is not None else _read_text("prompt.template_file", prompt.template_file)
    )
    system = prompt.system if prompt.system_file is None else _read_text("prompt.system_file", prompt.system_file)
    lookup = {
        name: parse_lookup(name, Path(path).suffix, _read(f"prompt.lookup.{name}", path))
        for name, path in prompt.lookup.items()
    }
    return PromptTemplate(
        system,
        template,
        lookup,
        dict(prompt.lookup),
        job.audit.redact,
        system_source=prompt.system_file or "prompt.system",
        template_source=prompt.template_file or "prompt.template",
    )


def _read(key: str, path: str) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise ConfigError(f"{key}: can't read {path}: {error.strerror or error}") from error


def _read_text(key: str, path: str | None) -> str:
    data = _read(key, path or "")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key}: {path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
