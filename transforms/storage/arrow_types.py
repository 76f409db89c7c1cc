"""Arrow schemas: of the audit tables (DESIGN section 4), each column with its description, and of enriched rows.

Column names never change their meaning; new columns are added at the end of a table.
"""

import pyarrow as pa

from transforms.rules.answer_columns import AnswerColumns
from transforms.rules.answer_type import AnswerType

TIMESTAMP = pa.timestamp("us", tz="UTC")
MONEY = pa.decimal128(38, 18)


def _required(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"description": description})


def _optional(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


RUNS = pa.schema(
    [
        _required("run_id", pa.string(), "The run; sorts by start time"),
        _required("job_name", pa.string(), "The job file's name"),
        _required("job_sha256", pa.string(), "Hash of the job as it ran, overrides included"),
        _required("started_at", TIMESTAMP, "When the run began"),
        _optional("ended_at", TIMESTAMP, "When it ended; of a crashed run, the end of its last recorded call"),
        _required("status", pa.string(), "How the run ended; crashed: it was killed and sealed by a later run"),
        _required("runner", pa.string(), "The Beam runner"),
        _optional("rows_in", pa.int64(), "Rows read, unreadable ones included; null of a crashed run, as all rows_"),
        _optional("rows_enriched", pa.int64(), "Rows with a checked answer"),
        _optional("rows_dead_lettered", pa.int64(), "Rows given up, with a reason"),
        _optional("rows_pending", pa.int64(), "Rows left for the next run"),
        _required("calls_sent", pa.int64(), "LLM calls made by this run, every try counted"),
        _required("calls_succeeded", pa.int64(), "Of these, calls with a normal answer"),
        _required("calls_failed", pa.int64(), "Of these, all others"),
        _optional("calls_reused", pa.int64(), "Requests answered from the ledger without a call"),
        _optional("input_tokens", pa.int64(), "Sum over this run's calls"),
        _optional("output_tokens", pa.int64(), "Sum over this run's calls"),
        _optional("cost_usd", MONEY, "Sum over this run's calls whose cost is known"),
    ]
)

BATCHES = pa.schema(
    [
        _required(
            "batch_id",
            pa.string(),
            "One group of requests; with run_id the key: a provider's batch has a row for each run that had to do with it",
        ),
        _required("run_id", pa.string(), "The run that took it up, and left it as this row says (runs.run_id)"),
        _required("batch_key", pa.string(), "Hash of the request ids, provider and model"),
        _required("mode", pa.string(), "How its requests travelled"),
        _required("provider_name", pa.string(), "OpenTelemetry's gen_ai.provider.name"),
        _required("request_model", pa.string(), "The model asked for"),
        _optional("provider_batch_id", pa.string(), "The provider's id of the batch; null in real time"),
        _optional("input_file_id", pa.string(), "The provider's id of the request file; null in real time"),
        _optional("output_file_id", pa.string(), "The provider's id of the result file; null in real time"),
        _optional("error_file_id", pa.string(), "The provider's id of the error file; null in real time"),
        _required("status", pa.string(), "How it ended; interrupted: the run was killed meanwhile"),
        _required("submitted_at", TIMESTAMP, "When the run took it up"),
        _optional("ended_at", TIMESTAMP, "When its last request settled; null if interrupted"),
        _required("request_count", pa.int64(), "Requests in it"),
        _required("succeeded_count", pa.int64(), "Requests with a normal answer"),
        _required("failed_count", pa.int64(), "Requests that ended otherwise"),
        _required("pending_count", pa.int64(), "Requests without an end"),
    ]
)

BATCH_MEMBERS = pa.schema(
    [
        _required("batch_id", pa.string(), "The batch (batches.batch_id)"),
        _required("ordinal", pa.int64(), "Place in sending order, from 0"),
        _required("custom_id", pa.string(), "The request's name inside the batch"),
        _required("request_id", pa.string(), "The request"),
    ]
)

CALLS = pa.schema(
    [
        _required("call_id", pa.string(), "One exchange with a provider"),
        _required("run_id", pa.string(), "The run that made it (runs.run_id)"),
        _required("batch_id", pa.string(), "The batch it belongs to (batches.batch_id, of the same run_id)"),
        _required("call_index", pa.int64(), "Its number inside the batch, from 0"),
        _required("call_type", pa.string(), "LLM: one request's answer; HTTP: any other exchange"),
        _optional("custom_id", pa.string(), "The request's name inside the batch (batch_members.custom_id)"),
        _optional("request_id", pa.string(), "The request; hash of all that can change its answer"),
        _optional("root_request_id", pa.string(), "The first question it serves; differs from request_id on a repair"),
        _optional("lane", pa.string(), "main: the row's first question; repair: the one re-ask"),
        _required("attempt", pa.int64(), "Number of this try of the request, from 1"),
        _required("status", pa.string(), "SUCCESS: a normal answer; ERROR: all else"),
        _required("outcome", pa.string(), "What became of it: ok, truncated, refusal, rate_limited, ..."),
        _optional("http_status", pa.int64(), "HTTP status; null when no response came"),
        _optional("provider_request_id", pa.string(), "The provider's id, for its support"),
        _required("started_at", TIMESTAMP, "When it was sent"),
        _required("latency_ms", pa.float64(), "From sending to the end of the response"),
        _required("waited_ms", pa.float64(), "Held back before sending (limits, back-off)"),
        _optional("request_json", pa.string(), "Request body, as audit.payloads and audit.redact allow"),
        _optional("response_json", pa.string(), "Response body, likewise"),
        _optional("error_json", pa.string(), "The error, where there was one"),
        _required("provider_name", pa.string(), "OpenTelemetry's gen_ai.provider.name"),
        _required("request_model", pa.string(), "The model asked for"),
        _optional("response_model", pa.string(), "The model that answered, as the provider named it"),
        _optional("input_tokens", pa.int64(), "Tokens read, cached ones included; null if not told, as all tokens"),
        _optional("output_tokens", pa.int64(), "Tokens written, reasoning included"),
        _optional("cache_read_input_tokens", pa.int64(), "Of the input, read from the provider's cache"),
        _optional("cache_write_input_tokens", pa.int64(), "Of the input, written to the provider's cache"),
        _optional("reasoning_output_tokens", pa.int64(), "Of the output, reasoning"),
        _required("finish_reasons", pa.list_(pa.string()), "Why the model stopped; empty without an answer"),
        _optional("cost_usd", MONEY, "Cost; null when unknown"),
        _required("cost_source", pa.string(), "provider, price_table, not_billed or unknown"),
        _optional("cost_reason", pa.string(), "Why the cost is what it is, or unknown"),
        _optional("prompt_sha256", pa.string(), "Hash of the rendered prompt"),
        _optional("template_sha256", pa.string(), "Hash of the templates"),
        _optional("variables_sha256", pa.string(), "Hash of the values the templates were given"),
        _optional("lookup_sha256", pa.string(), "Hash of the lookup files; null without any"),
    ]
)

ROWS = pa.schema(
    [
        _required("row_id", pa.string(), "The row: its key columns, or its content"),
        _required("run_id", pa.string(), "The run (runs.run_id)"),
        _optional("request_id", pa.string(), "The request asked for it; null if none could be rendered"),
        _required("outcome", pa.string(), "enriched, dead_lettered or pending"),
        _optional("call_id", pa.string(), "The call that settled it (calls.call_id, maybe of an earlier run)"),
        _optional("answered_in_run_id", pa.string(), "The run that made that call; differs from run_id when reused"),
        _required("source", pa.string(), "Where the row stands: path:line"),
    ]
)

#: The audit tables by name, which is also their folder's.
AUDIT_SCHEMAS: dict[str, pa.Schema] = {
    "runs": RUNS,
    "batches": BATCHES,
    "batch_members": BATCH_MEMBERS,
    "calls": CALLS,
    "rows": ROWS,
}

_ANSWER_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "decimal": MONEY,
    "json": pa.string(),
}


def enriched_schema(input_arrow: pa.Schema, columns: AnswerColumns) -> pa.Schema:
    """Return the schema of enriched rows: the input's columns as they are, then the answer's; all may be null."""
    ours = [pa.field(name, answer_type(kind)) for name, kind in columns.types()]
    return pa.schema([*input_arrow, *ours])


def answer_type(kind: AnswerType) -> pa.DataType:
    """Return the Arrow type of a node of an answer's type tree."""
    if kind.kind == "object":
        return pa.struct([pa.field(name, answer_type(member)) for name, member in kind.fields])
    if kind.kind == "array":
        return pa.list_(pa.string() if kind.item is None else answer_type(kind.item))
    return _ANSWER_TYPES[kind.kind]
