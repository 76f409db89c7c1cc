"""The plan's reading: the whole input as distinct requests with their sizes, and the rows that can't be asked about.

Rows pass through the same functions as in a run (reading, identity, templates, request ids), in this process. Memory:
one short digest and a token count per distinct request, for a job with a key two more digests per row while keys are
compared, and a few hundred prompts; never all rows.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from pipelines.batch_check import find_batch_api
from pipelines.estimate_basis import SAMPLE, Sampled, ruled_schema_tokens
from pipelines.prepare import PreparedJob
from pipelines.row_sample import SpreadSample
from transforms.providers import make_provider
from transforms.records.errors import RowError
from transforms.records.failure import DeadLetter, FailureKind, Stage
from transforms.records.request import Prompt
from transforms.records.row import RawRow
from transforms.rules.fingerprint import custom_id
from transforms.rules.identity import content_sha256, row_key
from transforms.rules.tokens import prompt_tokens
from transforms.storage.inputs import read_rows

_EXAMPLES = 3
_DIGEST_BYTES = 16
#: As long as any; what it says does not matter here.
_CUSTOM_ID = custom_id("plan", "0" * 64)


@dataclass(slots=True)
class Failures:
    """Rows that would be dead letters before any call, counted by stage and kind, with the first few of each."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, stage: Stage, kind: FailureKind, row: RawRow | DeadLetter, reason: str) -> None:
        """Count one row."""
        name = (str(stage), str(kind))
        self.counts[name] += 1
        shown = self.examples.setdefault(name, [])
        if len(shown) < _EXAMPLES:
            shown.append({"source": f"{row.path}:{row.line}", "reason": reason})

    def to_json(self) -> list[dict[str, Any]]:
        """Return [{stage, kind, rows, examples}], the most frequent first."""
        return [
            {"stage": stage, "kind": kind, "rows": count, "examples": self.examples[stage, kind]}
            for (stage, kind), count in self.counts.most_common()
        ]


@dataclass(slots=True)
class Scan:
    """What reading the whole input found. Tokens are input tokens by the character rule.

    Attributes:
        rows_in, asked: rows, and those that become part of a request.
        requests: tokens of each distinct request, by its `short_id`.
        shared_tokens: what the rows would be asked besides if none shared another's request.
        line_bytes: of all distinct requests as lines of a batch's request file; 0 without a batch API.
        prompt_bytes: of all distinct requests' prompts, as UTF-8.
        sample: distinct requests, spread over the input.
    """

    rows_in: int = 0
    asked: int = 0
    failures: Failures = field(default_factory=Failures)
    requests: dict[bytes, int] = field(default_factory=dict)
    shared_tokens: int = 0
    line_bytes: int = 0
    prompt_bytes: int = 0
    sample: SpreadSample[Sampled] = field(default_factory=lambda: SpreadSample(SAMPLE))


def scan_input(prepared: PreparedJob) -> Scan:
    """Read the input, once; more often only when rows of different content share a key.

    Raises:
        InputError, OSError: an input can't be read any more.
    """
    if not prepared.job.input.key:
        return _scan(prepared, _Keys([], frozenset()))
    hopeful = _Keys(prepared.job.input.key, None)
    scan = _scan(prepared, hopeful)
    return _scan(prepared, _Keys(hopeful.columns, _clashing_keys(prepared))) if hopeful.clash else scan


def short_id(request_id: str) -> bytes:
    """Return the part of a request id that tells a job's requests apart."""
    return bytes.fromhex(request_id[: 2 * _DIGEST_BYTES])


class _Keys:
    """Tells rows without a usable key. clashing: digests of the keys that differing rows share; None: not known yet.

    Attributes:
        clash: two rows of different content had one key, and which rows share it was not known.
    """

    def __init__(self, columns: list[str], clashing: frozenset[bytes] | None) -> None:
        self.columns = columns
        self.clash = False
        self._clashing = clashing
        self._contents: dict[bytes, bytes] = {}

    def refuses(self, row: RawRow, failures: Failures) -> bool:
        """Say whether the row has no usable key, and count it if so."""
        if not self.columns:
            return False
        try:
            text = row_key(row.values, self.columns)
        except RowError as error:
            failures.add(Stage.IDENTIFY, error.kind, row, error.reason)
            return True
        if self._clashing is None:
            self.clash = _differs(self._contents, _digest(text), row)
            return False
        if self._clashing and _digest(text) in self._clashing:
            why = f'other rows with other content have the key "{text}"'
            failures.add(Stage.IDENTIFY, FailureKind.DUPLICATE_KEY, row, why)
            return True
        return False


class _Sizer:
    """Estimates a request's input tokens, and measures its line in a batch's request file."""

    def __init__(self, prepared: PreparedJob) -> None:
        schema = prepared.answer_schema
        self._schema_tokens = ruled_schema_tokens(prepared)
        self._provider = make_provider(prepared.job.model, schema)
        self._batch_api, _ = find_batch_api(prepared.job, schema, self._provider)

    def tokens(self, prompt: Prompt) -> int:
        return prompt_tokens(prompt) + self._schema_tokens

    def line_bytes(self, prompt: Prompt) -> int:
        if self._batch_api is None:
            return 0
        return len(self._batch_api.line(_CUSTOM_ID, self._provider.body(prompt))) + 1


def _scan(prepared: PreparedJob, keys: _Keys) -> Scan:
    """Read the input; ends early where `keys` finds a clash, and then the result counts for nothing."""
    scan = Scan()
    sizer = _Sizer(prepared)
    for row in _rows(prepared):
        scan.rows_in += 1
        if isinstance(row, DeadLetter):
            scan.failures.add(row.stage, row.kind, row, row.reason)
        elif not keys.refuses(row, scan.failures):
            _ask(prepared, row, scan, sizer)
        if keys.clash:
            break
    return scan


def _ask(prepared: PreparedJob, row: RawRow, scan: Scan, sizer: _Sizer) -> None:
    try:
        prompt = prepared.template.render(row.values).prompt
    except RowError as error:
        scan.failures.add(Stage.RENDER, error.kind, row, error.reason)
        return
    scan.asked += 1
    request_id = prepared.identity.request_id(prompt)
    request = short_id(request_id)
    known = scan.requests.get(request)
    if known is not None:
        scan.shared_tokens += known
        return
    tokens = scan.requests[request] = sizer.tokens(prompt)
    scan.line_bytes += sizer.line_bytes(prompt)
    scan.prompt_bytes += _prompt_bytes(prompt)
    if scan.sample.wants_next():
        scan.sample.keep(Sampled(request_id, tokens, prompt))


def _prompt_bytes(prompt: Prompt) -> int:
    system = "" if prompt.system is None else prompt.system
    return len(system.encode()) + sum(len(text.encode()) for _, text in prompt.turns)


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
        if _differs(contents, key, row):
            clashing.add(key)
    return frozenset(clashing)


def _differs(contents: dict[bytes, bytes], key: bytes, row: RawRow) -> bool:
    """Say whether an earlier row of this key had another content, and remember this one's."""
    content = bytes.fromhex(content_sha256(row.values))[:_DIGEST_BYTES]
    return contents.setdefault(key, content) != content


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
