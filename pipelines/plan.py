"""What a run of a job would do, send and cost: reads the input and the ledger, sends nothing, needs no Beam.

Rows pass through the same functions as in a run (reading, identity, templates, request ids, the ledger's answers),
in this process. Memory: one short digest and a token count per distinct request, and for a job with a key one more
digest per row while keys are compared; never the rows themselves.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from pipelines.batch_check import find_batch_api
from pipelines.estimate import Load, estimate_cost, estimate_time, output_range
from pipelines.plan_batch import batch_warnings, plan_batch, plan_route
from pipelines.prepare import PreparedJob, list_in_flight
from transforms.providers import make_provider
from transforms.records.errors import RowError
from transforms.records.failure import DeadLetter, FailureKind, Stage
from transforms.records.request import Lane, Prompt
from transforms.records.row import RawRow
from transforms.rules.fingerprint import custom_id
from transforms.rules.identity import content_sha256, row_key
from transforms.rules.tokens import estimate_tokens, prompt_tokens
from transforms.storage.batch_members import read_members
from transforms.storage.inputs import read_rows
from transforms.storage.ledger import read_answers

_EXAMPLES = 3
_DIGEST_BYTES = 16
#: As long as any; what it says does not matter here.
_CUSTOM_ID = custom_id("plan", "0" * 64)
_ESTIMATE = "about 4 characters of English a token, prompt and schema; providers count differently"
_DAMAGE = (
    "can't be read to the end: rows are missing, and a run would end with exit code 1; get the file again from its "
    "source"
)


@dataclass(slots=True)
class _Failures:
    """Rows that would be dead letters before any call, counted by stage and kind, with the first few of each."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, stage: Stage, kind: FailureKind, row: RawRow | DeadLetter, reason: str) -> None:
        name = (str(stage), str(kind))
        self.counts[name] += 1
        shown = self.examples.setdefault(name, [])
        if len(shown) < _EXAMPLES:
            shown.append({"source": f"{row.path}:{row.line}", "reason": reason})

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {"stage": stage, "kind": kind, "rows": count, "examples": self.examples[stage, kind]}
            for (stage, kind), count in self.counts.most_common()
        ]


@dataclass(slots=True)
class _Scan:
    """What reading the whole input found.

    Attributes:
        rows_in, asked: rows, and those that become part of a request.
        requests: tokens of each distinct request, by its digest.
        line_bytes: of all distinct requests as lines of a batch's request file; 0 without a batch API.
    """

    rows_in: int = 0
    asked: int = 0
    failures: _Failures = field(default_factory=_Failures)
    requests: dict[bytes, int] = field(default_factory=dict)
    line_bytes: int = 0


def make_plan(prepared: PreparedJob) -> dict[str, Any]:
    """Return what a run would do, as JSON values with stable keys.

    Keys: job, output, provider, model, rows {in, asked, failed}, failures, requests {distinct, shared, reused,
    in_flight, to_send}, tokens {input, output_low, output_high, method}, cost_usd {low, high, unknown}, time {low_s,
    high_s, limited_by, assumption}, batch {available, unavailable, cost_usd, batches, max_requests, time}, route {mode,
    chosen, why}, warnings. cost_usd and time are those of real time, batch those of the provider's batch API
    (`plan_batch`), whichever way `route` says a run would go. requests.in_flight are in a batch of an earlier run,
    which is collected and not sent again.

    Raises:
        InputError, OSError: an input can't be read any more.
        InternalError: the ledger is damaged.
    """
    scan = _scan(prepared)
    distinct = len(scan.requests)
    _drop_settled(prepared.segments, scan.requests)
    unanswered = len(scan.requests)
    _drop_in_flight(prepared, scan.requests)
    to_send = len(scan.requests)
    load = Load(to_send, sum(scan.requests.values()), *output_range(prepared.max_output_tokens, to_send))
    cost = estimate_cost(prepared.provider_name, prepared.price_model, load)
    batch = plan_batch(prepared, load, scan.line_bytes * to_send // max(distinct, 1))
    route = plan_route(prepared, to_send)
    is_batch = route["chosen"] == "batch"
    warnings = _warnings(prepared, scan, batch["cost_usd"] if is_batch else cost, to_send)
    if is_batch:
        warnings += batch_warnings(prepared.batching, load, batch["batches"])
    return {
        "job": prepared.job.name,
        "output": prepared.job.output,
        "provider": prepared.provider_name,
        "model": prepared.request_model,
        "rows": {"in": scan.rows_in, "asked": scan.asked, "failed": scan.rows_in - scan.asked},
        "failures": scan.failures.to_json(),
        "requests": {
            "distinct": distinct,
            "shared": scan.asked - distinct,
            "reused": distinct - unanswered,
            "in_flight": unanswered - to_send,
            "to_send": to_send,
        },
        "tokens": {
            "input": load.input_tokens,
            "output_low": load.output_low,
            "output_high": load.output_high,
            "method": _ESTIMATE,
        },
        "cost_usd": cost,
        "time": estimate_time(prepared.job, load),
        "batch": batch,
        "route": route,
        "warnings": warnings,
    }


def _scan(prepared: PreparedJob) -> _Scan:
    key = prepared.job.input.key
    clashing = _clashing_keys(prepared) if key else frozenset()
    scan = _Scan()
    sizer = _Sizer(prepared)
    for row in _rows(prepared):
        scan.rows_in += 1
        if isinstance(row, DeadLetter):
            scan.failures.add(row.stage, row.kind, row, row.reason)
        elif not _is_clash(row, key, clashing, scan.failures):
            _ask(prepared, row, scan, sizer)
    return scan


def _rows(prepared: PreparedJob) -> Iterator[RawRow | DeadLetter]:
    for file in prepared.files:
        yield from read_rows(file, prepared.input, prepared.input_schema)


def _clashing_keys(prepared: PreparedJob) -> frozenset[bytes]:
    """Return the digests of the keys that rows of different content share."""
    contents: dict[bytes, bytes] = {}
    clashing: set[bytes] = set()
    for row in _rows(prepared):
        if isinstance(row, DeadLetter):
            continue
        try:
            key = _digest(row_key(row.values, prepared.job.input.key))
        except RowError:
            continue
        content = bytes.fromhex(content_sha256(row.values))[:_DIGEST_BYTES]
        if contents.setdefault(key, content) != content:
            clashing.add(key)
    return frozenset(clashing)


def _is_clash(row: RawRow, key: list[str], clashing: frozenset[bytes], failures: _Failures) -> bool:
    """Say whether the row has no usable key, and count it if so."""
    if not key:
        return False
    try:
        text = row_key(row.values, key)
    except RowError as error:
        failures.add(Stage.IDENTIFY, error.kind, row, error.reason)
        return True
    if clashing and _digest(text) in clashing:
        failures.add(
            Stage.IDENTIFY, FailureKind.DUPLICATE_KEY, row, f'other rows with other content have the key "{text}"'
        )
        return True
    return False


class _Sizer:
    """Estimates a request's input tokens, and measures its line in a batch's request file."""

    def __init__(self, prepared: PreparedJob) -> None:
        schema = prepared.answer_schema
        self._schema_tokens = estimate_tokens(orjson.dumps(schema).decode()) if schema else 0
        self._provider = make_provider(prepared.job.model, schema)
        self._batch_api, _ = find_batch_api(prepared.job, schema, self._provider)

    def tokens(self, prompt: Prompt) -> int:
        return prompt_tokens(prompt) + self._schema_tokens

    def line_bytes(self, prompt: Prompt) -> int:
        if self._batch_api is None:
            return 0
        return len(self._batch_api.line(_CUSTOM_ID, self._provider.body(prompt))) + 1


def _ask(prepared: PreparedJob, row: RawRow, scan: _Scan, sizer: _Sizer) -> None:
    try:
        prompt = prepared.template.render(row.values).prompt
    except RowError as error:
        scan.failures.add(Stage.RENDER, error.kind, row, error.reason)
        return
    scan.asked += 1
    request = _short(prepared.identity.request_id(prompt))
    if request not in scan.requests:
        scan.requests[request] = sizer.tokens(prompt)
        scan.line_bytes += sizer.line_bytes(prompt)


def _drop_settled(segments: list[str], requests: dict[bytes, int]) -> None:
    """Take out the requests that the ledger answers."""
    for path in segments:
        for answer in read_answers(path):
            if answer.lane is Lane.MAIN:
                requests.pop(_short(answer.request_id), None)


def _drop_in_flight(prepared: PreparedJob, requests: dict[bytes, int]) -> None:
    """Take out the requests that wait in a batch of an earlier run."""
    for key in list_in_flight(prepared):
        for member in read_members(prepared.ledger, key):
            requests.pop(_short(member.request_id), None)


def _short(hex_digest: str) -> bytes:
    return bytes.fromhex(hex_digest[: 2 * _DIGEST_BYTES])


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def _damaged_files(failures: _Failures) -> str:
    shown = failures.examples.get((str(Stage.READ), str(FailureKind.DAMAGED_FILE)), [])
    return ", ".join(sorted({example["source"].rpartition(":")[0] for example in shown}))


def _warnings(prepared: PreparedJob, scan: _Scan, cost: dict[str, Any], to_send: int) -> list[str]:
    job = prepared.job
    used = prepared.template.columns_used
    duplicates = scan.failures.counts[str(Stage.IDENTIFY), str(FailureKind.DUPLICATE_KEY)]
    lost = scan.rows_in - scan.asked
    share = lost / scan.rows_in if scan.rows_in else 0.0
    allowed = job.limits.max_dead_letter_ratio
    damaged = _damaged_files(scan.failures)
    cases = [
        (bool(damaged), f"{damaged} {_DAMAGE}"),
        (scan.rows_in == 0, "the input has no rows"),
        (used is not None and not used, "the template names no column: every row asks the same question"),
        (
            not job.input.key,
            "input.key names no column: rows are told apart by their content, so a changed row is a new row",
        ),
        (duplicates > 0, f"{duplicates:,} rows share a key and differ: all of them become dead letters"),
        (
            share > allowed,
            f"{share:.1%} of the rows fail before any call, more than limits.max_dead_letter_ratio ({allowed:.1%})",
        ),
        (
            prepared.max_output_tokens is None,
            "model.params.max_output_tokens is not set: an answer may be as long, and cost as much, as the model likes",
        ),
        (to_send > 0 and cost["unknown"] is not None, f"the cost is unknown: {cost['unknown']}"),
    ]
    return [sentence for holds, sentence in cases if holds]
