"""ParseAnswers: ModelAnswer -> RequestResult, or a repair ModelRequest for an answer that is not what was asked for.

Parsing and checking are one act. Only a normally finished answer is parsed: a truncated, refused or filtered one
is a failure of its own kind. Pure; safe to retry.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import REPAIRS, Counters
from transforms.records.answer import ModelAnswer, RequestResult
from transforms.records.errors import AnswerError
from transforms.records.failure import FailureKind, Stage
from transforms.records.request import Lane, ModelRequest, PriorAttempt, PromptHashes, pack
from transforms.rules.answer import AnswerReader
from transforms.rules.call_record import blank
from transforms.rules.fingerprint import RequestIdentity
from transforms.rules.prompt_hash import prompt_sha256
from transforms.rules.repair import repair_prompt


class ParseAnswersResult(NamedTuple):
    """results: RequestResult; repairs: (request_id, packed ModelRequest) of the REPAIR lane (empty in that lane)."""

    results: pvalue.PCollection
    repairs: pvalue.PCollection


class ParseAnswers(beam.PTransform):
    """Check every answer against the job's type.

    Args:
        reader: parses and checks.
        identity: names the repair requests.
        repair: ask once more for an answer that fails the check, showing the model its answer and the error.
    """

    def __init__(self, reader: AnswerReader, identity: RequestIdentity, *, repair: bool) -> None:
        super().__init__()
        self._reader = reader
        self._identity = identity
        self._repair = repair

    def expand(self, answers: pvalue.PCollection) -> Any:
        """Parse each answer on its own."""
        parse = beam.ParDo(_ParseAnswerDoFn(self._reader, self._identity, repair=self._repair))
        typed = parse.with_output_types(RequestResult, repairs=tuple[str, bytes])
        parsed = answers | "ParseAnswer" >> typed.with_outputs(REPAIRS, main="results")
        return ParseAnswersResult(parsed["results"], parsed[REPAIRS])


class _ParseAnswerDoFn(beam.DoFn):
    def __init__(self, reader: AnswerReader, identity: RequestIdentity, *, repair: bool) -> None:
        self._reader = reader
        self._identity = identity
        self._repair = repair

    def setup(self) -> None:
        self._counters = Counters("ParseAnswers")

    def process(self, answer: ModelAnswer) -> Iterator[Any]:
        if answer.kind is not FailureKind.OK:
            self._counters.add(f"answers_{answer.kind}")
            yield _result(answer, kind=answer.kind, stage=Stage.CALL, reason=answer.reason)
            return
        try:
            value = self._reader.read(answer.text or "")
        except AnswerError as error:
            self._counters.add("answers_invalid_output")
            first = answer.request
            if self._repair and first.lane is Lane.MAIN:
                request = _repair_request(answer, first, str(error), self._identity)
                yield pvalue.TaggedOutput(REPAIRS, (request.request_id, pack(request)))
            else:
                yield _result(answer, kind=FailureKind.INVALID_OUTPUT, stage=Stage.PARSE, reason=str(error))
            return
        yield _result(answer, value_json=value)


def _result(
    answer: ModelAnswer,
    *,
    value_json: str | None = None,
    kind: FailureKind = FailureKind.OK,
    stage: Stage | None = None,
    reason: str | None = None,
) -> RequestResult:
    """Build the result; a repair's carries what the invalid answer before it had cost."""
    request = answer.request
    prior = request.prior
    attempts, usage, cost = answer.attempts, answer.usage, answer.cost_usd
    if prior is not None:
        attempts += prior.attempts
        usage = prior.usage.plus(usage)
        cost = None if cost is None or prior.cost_usd is None else cost + prior.cost_usd
        if reason and kind is FailureKind.INVALID_OUTPUT:
            reason = f"{reason} (after one repair; first: {prior.error})"
    return RequestResult(
        request_id=request.root_request_id,
        value_json=value_json,
        kind=kind,
        stage=stage,
        reason=reason,
        attempts=attempts,
        call_id=answer.call_id,
        run_id=answer.run_id,
        reused=answer.reused,
        response_model=answer.response_model,
        usage=usage,
        cost_usd=cost,
        repaired=prior is not None and value_json is not None,
        riders=request.riders,
        crowded=request.crowded,
    )


def _repair_request(answer: ModelAnswer, first: ModelRequest, error: str, identity: RequestIdentity) -> ModelRequest:
    text = answer.text or ""
    prompt = repair_prompt(first.prompt, text, error)
    shown = None
    if first.shown_prompt is not None:
        hidden = first.redacted_values
        shown = repair_prompt(first.shown_prompt, blank(text, hidden), blank(error, hidden))
    return ModelRequest(
        request_id=identity.request_id(prompt),
        prompt=prompt,
        shown_prompt=shown,
        hashes=PromptHashes(prompt_sha256(prompt), first.hashes.template, first.hashes.variables, first.hashes.lookup),
        lane=Lane.REPAIR,
        root_request_id=first.request_id,
        redacted_values=first.redacted_values,
        riders=first.riders,
        crowded=first.crowded,
        prior=PriorAttempt(answer.call_id, answer.attempts, answer.usage, answer.cost_usd, error),
    )
