"""Reading result lines that are like lines before them, in half the time of reading any line.

The lines of a batch's results differ in ids, answers and token counts. The first line of a kind is read as any line
is; those like it (`rules/line_shape.py`) share with it all that their record shares, and the rest is put together from
the line's own parts: the same record, the same line in the ledger, the same answer. What may be otherwise in any way
(a row with hidden columns, a secret, an answer that is not a normal one) is left to `BatchReader`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from transforms._batch_desk import BatchDesk
from transforms.providers.base import Provider
from transforms.records.answer import ModelAnswer
from transforms.records.batch import BatchLine, BatchRef
from transforms.records.call import CallRecord
from transforms.records.failure import FailureKind
from transforms.records.reply import HttpResponse, Reply
from transforms.records.request import Prompt, unpack, unpack_flat
from transforms.records.usage import Usage
from transforms.rules.call_record import CallRecorder, Exchange
from transforms.rules.line_shape import FitLine, LineShape, learn
from transforms.storage.ledger_lines import encode_like, shared_fields

#: So many shapes are kept: a line that fits none of them is tried with each. And so many lines are looked at for one.
_SHAPES_KEPT, _LINES_TRIED = 4, 40
#: So many different token counts of a shape, of some 2 kB each, and system prompts are remembered.
_USAGES_KEPT, _SYSTEMS_KEPT = 4_000, 100
#: Where the one text of a prompt goes; no prompt has it.
_MARK = "\ue000rowbeam\ue000"
_OK = FailureKind.OK
#: The fields of a record that lines of one shape, lane and token counts have otherwise.
_CHANGING = (
    "call_id", "call_index", "custom_id", "request_id", "root_request_id", "provider_request_id", "request_json",
    "response_json", "prompt_sha256", "template_sha256", "variables_sha256", "lookup_sha256", "text",
)  # fmt: skip


#: Those that follow from the token counts, and the field that the stretch of a ledger line which holds them begins with.
_COUNTED = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "reasoning_output_tokens",
    "cost_usd", "cost_source", "cost_reason",
)  # fmt: skip
_COUNTED_STRETCH = "error_json"


class _Base(NamedTuple):
    """What the records of lines of one shape and lane share: all fields, and their stretches of the ledger's line."""

    values: dict[str, Any]
    shared: dict[str, Any]


class _Counts(NamedTuple):
    """What records of lines with equal token counts share; stretch: how the ledger writes it."""

    facts: dict[str, Any]
    stretch: orjson.Fragment
    response_model: str | None
    usage: Usage


@dataclass(slots=True)
class _Kind:
    """A shape, the status and request id that its lines share, and what is known of their records, by lane."""

    shape: LineShape
    status: int
    request_id: str | None
    bases: dict[bool, _Base] = field(default_factory=dict)
    counts: dict[str, _Counts] = field(default_factory=dict)


class AlikeReader:
    """Reads the lines of one batch's results that are alike.

    Args:
        desk: of the DoFn.
        ref: the batch.
        started_at_us, latency_ms: of every request of it.
    """

    def __init__(self, desk: BatchDesk, ref: BatchRef, started_at_us: int, latency_ms: float) -> None:
        self._desk = desk
        self._ref = ref
        self._times = (started_at_us, latency_ms)
        self._provider = desk.worker.provider
        self._recorder: CallRecorder = desk.worker.pool.recorder
        self._redactor = self._recorder.redactor
        self._prompts = _PromptTexts(self._provider, self._redactor.is_plain)
        audit = desk.settings.audit
        can_be_told = audit.payloads == "full" and not audit.redact and self._redactor.looks_for_words
        self._tries_left = _LINES_TRIED if can_be_told else 0
        self._kinds: list[_Kind] = []
        self._kind: _Kind | None = None

    def fit(self, raw: bytes) -> FitLine | None:
        """Return the parts of a line that is like one before it, or None."""
        if not self._kinds:
            return None
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            return None
        for kind in self._kinds:
            fit = kind.shape.fit(line)
            if fit is not None:
                self._kind = kind
                return fit
        return None

    def take(self, fit: FitLine, request_id: str, packed: bytes) -> tuple[CallRecord, bytes, ModelAnswer] | None:
        """Return record, line of the ledger and answer of the line that `fit` has just read.

        None where it has to be read as any line is.
        """
        _, system, turns, shown, prompt, template, variables, lookup, is_repair, root, hidden, *_ = unpack_flat(packed)
        if shown is not None or hidden or self._kind is None:
            return None
        request_json, said = self._prompts.render(system, turns)
        if not (self._redactor.is_plain(f"{fit.words}\n{said}") or self._is_clean(fit, request_json)):
            return None
        base, counts = self._kind.bases.get(is_repair), self._kind.counts.get(fit.usage)
        if base is None or counts is None:
            recorded = self._recorded(fit, request_json, packed)
            if recorded is None:
                return None
            base, counts = self._keep(recorded, fit.usage, is_repair)
        index = self._desk.next_index(self._ref)
        call_id = self._desk.call_id(self._ref, index)
        changes: dict[str, Any] = {
            "call_id": call_id,
            "call_index": index,
            "custom_id": fit.custom_id,
            "request_id": request_id,
            "root_request_id": root,
            "provider_request_id": fit.request_id or self._kind.request_id,
            "request_json": request_json,
            "response_json": fit.body,
            "prompt_sha256": prompt,
            "template_sha256": template,
            "variables_sha256": variables,
            "lookup_sha256": lookup,
            "text": fit.text,
        }
        answer = ModelAnswer(
            packed, _OK, fit.text, None, 1, call_id, self._recorder.run_id, False,
            counts.response_model, counts.usage, counts.facts["cost_usd"],
        )  # fmt: skip
        record = CallRecord.of(base.values | counts.facts | changes)
        changes[_COUNTED_STRETCH] = counts.stretch
        return record, encode_like(base.shared, changes), answer

    def learn(self, raw: bytes, line: BatchLine, record: CallRecord) -> None:
        """Take a line that was read as any line is, and its record, for an example of lines to come."""
        if self._tries_left == 0 or record.kind is not _OK or line.response is None:
            return
        self._tries_left -= 1
        text = raw.decode("utf-8", "replace")
        shape = learn(text, self._desk.api.body_path)
        fit = None if shape is None else shape.fit(text)
        if shape is None or fit is None or not self._redactor.is_plain(f"{text}\n{fit.body}"):
            return
        if not self._foretells(shape, text, line):
            return
        self._kinds.append(_Kind(shape, line.response.status, record.provider_request_id))
        if len(self._kinds) == _SHAPES_KEPT:
            self._tries_left = 0

    def _foretells(self, shape: LineShape, text: str, line: BatchLine) -> bool:
        """Whether a line like this one, with everything otherwise, is read as what the shape says of it."""
        assert line.response is not None  # noqa: S101 - the caller looked
        altered = shape.altered(text)
        fit, read = shape.fit(altered), self._desk.api.read_line(altered.encode())
        if fit is None or read.response is None or read.error is not None:
            return False
        first, other = self._provider.read(line.response), self._provider.read(read.response)
        if not (isinstance(first, Reply) and isinstance(other, Reply)):
            return False
        expected = (fit.custom_id, line.response.status, fit.body.encode(), fit.request_id or line.provider_request_id)
        return (
            expected == (read.custom_id, read.response.status, read.response.body, read.provider_request_id)
            and (_OK, fit.text, first.response_model, first.finish_reason)
            == (other.kind, other.text, other.response_model, other.finish_reason)
            and first.service_tier == other.service_tier
        )

    def _is_clean(self, fit: FitLine, request_json: str) -> bool:
        """Whether a line that could hold a secret, by a word in it, holds none."""
        every = f"{request_json}\n{fit.body}\n{fit.text}\n{fit.request_id}"
        return self._redactor.text(every) == every

    def _recorded(self, fit: FitLine, request_json: str, packed: bytes) -> tuple[CallRecord, Reply] | None:
        """Read and record a line as any is, for what lines with its token counts share; None where it is not OK."""
        kind = self._kind
        assert kind is not None  # noqa: S101 - the caller looked
        response = HttpResponse(kind.status, {}, fit.body.encode())
        reply = self._recorder.clean(self._provider.read(response))
        if not isinstance(reply, Reply) or (reply.kind, reply.text) != (_OK, fit.text):
            return None
        exchange = Exchange(
            unpack(packed), self._ref.batch_id, 0, "", fit.custom_id, 1, *self._times, 0.0,
            request_json.encode(), response, reply, None, "batch",
        )  # fmt: skip
        return self._recorder.record(exchange), reply

    def _keep(self, recorded: tuple[CallRecord, Reply], usage: str, is_repair: bool) -> tuple[_Base, _Counts]:
        kind, (record, reply) = self._kind, recorded
        assert kind is not None  # noqa: S101 - the caller looked
        values, shared = vars(record), shared_fields(record, _CHANGING)
        if len(kind.counts) >= _USAGES_KEPT:
            kind.counts.clear()
        facts = {name: values[name] for name in _COUNTED}
        counts = _Counts(facts, shared[_COUNTED_STRETCH], reply.response_model, reply.usage)
        kind.counts[usage] = counts
        base = kind.bases.setdefault(is_repair, _Base(values | dict.fromkeys(_CHANGING), shared))
        return base, counts


class _PromptTexts:
    """Renders the bodies of requests; those of prompts that differ in one text share the rest.

    Args:
        provider: builds the bodies.
        is_plain: whether a text holds nothing that secrets are told by.
    """

    def __init__(self, provider: Provider, is_plain: Callable[[str], bool]) -> None:
        self._provider = provider
        self._is_plain = is_plain
        self._around: dict[str | None, tuple[str, str] | None] = {}

    def render(self, system: str | None, turns: tuple[tuple[str, str], ...]) -> tuple[str, str]:
        """Return the body as audit shows it, and that part of it that is not known to be plain."""
        if len(turns) == 1 and turns[0][0] == "user":
            around = self._around.get(system) or self._learn(system)
            if around is not None:
                text = orjson.dumps(turns[0][1]).decode()
                return f"{around[0]}{text}{around[1]}", text
        body = self._body(system, turns)
        return body, body

    def _learn(self, system: str | None) -> tuple[str, str] | None:
        """Return what stands before and after a user's only text, where that is all plain."""
        if system in self._around or len(self._around) >= _SYSTEMS_KEPT:
            return self._around.get(system)
        body = self._body(system, (("user", _MARK),))
        around = body.split(orjson.dumps(_MARK).decode())
        is_known = len(around) == 2 and self._is_plain(body)
        self._around[system] = (around[0], around[1]) if is_known else None
        return self._around[system]

    def _body(self, system: str | None, turns: tuple[tuple[str, str], ...]) -> str:
        return orjson.dumps(self._provider.body(Prompt(system, turns))).decode()
