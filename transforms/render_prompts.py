"""RenderPrompts: SourceRow -> ModelRequest, AskedRow, and a DeadLetter for each row that can't be asked about.

Both outputs are keyed by request_id, so that equal questions meet in ReuseAnswers and rows meet their answer in
JoinAnswers. Safe to retry: rendering has no effect.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import FAILURES, REQUESTS, Counters
from transforms.records.errors import RowError
from transforms.records.failure import DeadLetter, Stage
from transforms.records.request import Lane, ModelRequest
from transforms.records.row import AskedRow, SourceRow
from transforms.rules.fingerprint import RequestIdentity
from transforms.rules.prompt import PromptTemplate


class RenderPromptsResult(NamedTuple):
    """rows: (request_id, AskedRow); requests: (request_id, ModelRequest), repeated where rows ask the same."""

    rows: pvalue.PCollection
    requests: pvalue.PCollection
    failures: pvalue.PCollection


class RenderPrompts(beam.PTransform):
    """Render the prompt of every row and name the request it makes.

    Args:
        template: the job's compiled templates.
        identity: everything but the prompt that can change an answer.
        redact: columns whose values audit never shows.
    """

    def __init__(self, template: PromptTemplate, identity: RequestIdentity, redact: list[str]) -> None:
        super().__init__()
        self._template = template
        self._identity = identity
        self._redact = redact

    def expand(self, rows: pvalue.PCollection) -> Any:
        """Render each row on its own."""
        rendered = rows | "RenderPrompt" >> beam.ParDo(
            _RenderPromptDoFn(self._template, self._identity, self._redact)
        ).with_outputs(REQUESTS, FAILURES, main="rows")
        return RenderPromptsResult(rendered["rows"], rendered[REQUESTS], rendered[FAILURES])


class _RenderPromptDoFn(beam.DoFn):
    def __init__(self, template: PromptTemplate, identity: RequestIdentity, redact: list[str]) -> None:
        self._template = template
        self._identity = identity
        self._redact = redact

    def setup(self) -> None:
        self._counters = Counters("RenderPrompts")

    def process(self, row: SourceRow) -> Iterator[Any]:
        try:
            rendered = self._template.render(row.values)
        except RowError as error:
            self._counters.add("rows_failed")
            yield pvalue.TaggedOutput(
                FAILURES,
                DeadLetter(
                    row.row_id, Stage.RENDER, error.kind, error.reason, 0, False, row.path, row.line, row.values
                ),
            )
            return
        request_id = self._identity.request_id(rendered.prompt)
        request = ModelRequest(
            request_id=request_id,
            prompt=rendered.prompt,
            shown_prompt=rendered.shown_prompt,
            hashes=rendered.hashes,
            lane=Lane.MAIN,
            root_request_id=request_id,
            redacted_values=tuple(str(row.values[name]) for name in self._redact if row.values.get(name) is not None),
        )
        yield pvalue.TaggedOutput(REQUESTS, (request_id, request))
        yield request_id, AskedRow(row, rendered.hashes.variables)
