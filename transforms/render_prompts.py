"""RenderPrompts: SourceRow -> ModelRequest, and a DeadLetter for each row that can't be asked about.

Requests are keyed by request_id, so that equal questions meet in ReuseAnswers; each carries its row. Safe to retry: rendering has no effect.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import FAILURES, REQUESTS, Counters
from transforms.records.errors import RowError
from transforms.records.failure import DeadLetter, Stage
from transforms.records.request import Lane, ModelRequest, pack
from transforms.records.row import AskedRow, SourceRow
from transforms.rules.fingerprint import RequestIdentity
from transforms.rules.hidden import hidden_values
from transforms.rules.prompt import PromptTemplate


class RenderPromptsResult(NamedTuple):
    """requests: (request_id, packed ModelRequest with the row as its rider), one per row; failures: DeadLetter."""

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
        render = beam.ParDo(_RenderPromptDoFn(self._template, self._identity, self._redact))
        rendered = rows | "RenderPrompt" >> render.with_output_types(tuple[str, bytes]).with_outputs(
            FAILURES, main=REQUESTS
        )
        return RenderPromptsResult(rendered[REQUESTS], rendered[FAILURES])


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
            redacted_values=hidden_values(row.values, self._redact) if self._redact else (),
            riders=(AskedRow(row, rendered.hashes.variables),),
        )
        yield request_id, pack(request)
