"""Records of calls and batches: the lines of the ledger, and the rows of the audit tables.

A ledger segment (`ledger/answers/<segment>.jsonl`) is a sequence of JSON objects, one per line, each with a
`type`: "segment" (first line), "batch" (a group was taken up), "call" (one exchange ended), "batch_end".
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from transforms.records.failure import FailureKind
from transforms.records.request import Lane


class CallType(StrEnum):
    """HTTP: file upload, batch create, status check, download, cancel. LLM: one request's answer."""

    HTTP = "HTTP"
    LLM = "LLM"


class CallStatus(StrEnum):
    """SUCCESS: a normal answer (kind ok). ERROR: everything else, truncation and refusal included."""

    SUCCESS = "SUCCESS"
    ERROR = "ERROR"


class CostSource(StrEnum):
    """Where cost_usd comes from; UNKNOWN goes with a null cost and a reason."""

    PROVIDER = "provider"
    PRICE_TABLE = "price_table"
    NOT_BILLED = "not_billed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost. usd is None exactly when source is UNKNOWN, and then reason says why."""

    usd: Decimal | None
    source: CostSource
    reason: str | None = None


@dataclass(frozen=True)
class CallRecord:
    """One exchange with a provider: a ledger line of type "call" and a row of the audit table `calls`.

    Times are microseconds since the epoch (UTC); durations milliseconds. Payload fields (request_json,
    response_json, error_json) already obey the job's audit settings. `text` is the answer as it is needed to
    reuse it; it stays in the ledger and is not an audit column.

    An exchange of type HTTP serves its whole batch: custom_id, request_id, root_request_id, lane and the hashes of
    the prompt are None, its cost is 0 and its source NOT_BILLED.

    Without slots, because there is one for each row: `of` can then give a record all its fields at once.
    """

    call_id: str
    run_id: str
    batch_id: str
    call_index: int
    call_type: CallType
    custom_id: str | None
    request_id: str | None
    root_request_id: str | None
    lane: Lane | None
    attempt: int
    status: CallStatus
    kind: FailureKind
    http_status: int | None
    provider_request_id: str | None
    started_at_us: int
    latency_ms: float
    waited_ms: float
    request_json: str | None
    response_json: str | None
    error_json: str | None
    provider_name: str
    request_model: str
    response_model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_input_tokens: int | None
    cache_write_input_tokens: int | None
    reasoning_output_tokens: int | None
    finish_reasons: tuple[str, ...]
    cost_usd: Decimal | None
    cost_source: CostSource
    cost_reason: str | None
    prompt_sha256: str | None
    template_sha256: str | None
    variables_sha256: str | None
    lookup_sha256: str | None
    text: str | None
    type: str = "call"

    @classmethod
    def of(cls, values: dict[str, Any]) -> "CallRecord":
        """Return the record of these values, in a twentieth of the constructor's time.

        Args:
            values: every field, `type` included, in the order of the fields. It becomes the record's own: the caller
                must not keep it.
        """
        record = object.__new__(cls)
        object.__setattr__(record, "__dict__", values)
        return record


@dataclass(frozen=True, slots=True)
class BatchOpened:
    """A group was taken up: a ledger line of type "batch"; gives the audit tables `batches` and `batch_members`.

    members: (custom_id, request_id) pairs in sending order; () where an earlier run of the job recorded them.
    request_count: how many members there are, where they are not given here.
    """

    batch_id: str
    batch_key: str
    run_id: str
    mode: str
    provider_name: str
    request_model: str
    submitted_at_us: int
    members: tuple[tuple[str, str], ...]
    request_count: int | None = None
    type: str = "batch"


@dataclass(frozen=True, slots=True)
class BatchEnded:
    """The group's last request settled, or the run left it: a ledger line of type "batch_end".

    status: "done", "failed" ... for groups of the pool; for a provider's batch its BatchStatus, "submitted" when the
    run left it unfinished, "unresolved" when nobody knows whether it was created.
    """

    batch_id: str
    run_id: str
    status: str
    ended_at_us: int
    succeeded: int
    failed: int
    pending: int
    provider_batch_id: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    type: str = "batch_end"
