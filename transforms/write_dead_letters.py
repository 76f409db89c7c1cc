"""WriteDeadLetters: DeadLetter -> JSON lines in the run's `dead_letters/` folder.

One object a line: row_id, run_id, stage, kind, reason, attempts, retryable, request_id, call_id,
source {path, line}, row (DESIGN section 4). Nothing is written when nothing failed.
"""

from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from transforms._sink import WritePartDoFn
from transforms.records.failure import DeadLetter
from transforms.rules.call_record import blank
from transforms.rules.hidden import hidden_values


class WriteDeadLetters(beam.PTransform):
    """Write rows that got no valid answer; gives (folder, path) of each part.

    Args:
        folder: the run's dead_letters folder.
        run_id: the run, named in each line.
        redact: columns whose values the reasons don't quote; the row itself is the user's, and whole.
    """

    def __init__(self, folder: str, run_id: str, redact: Sequence[str] = ()) -> None:
        super().__init__()
        self._folder = folder
        self._run_id = run_id
        self._redact = tuple(redact)

    def expand(self, failures: pvalue.PCollection) -> Any:
        """Map and write."""
        write = WritePartDoFn(self._folder, None)
        return failures | "Letter" >> beam.Map(_letter, self._run_id, self._redact) | "WritePart" >> beam.ParDo(write)


def _letter(failure: DeadLetter, run_id: str, redact: Sequence[str]) -> dict[str, Any]:
    reason = failure.reason
    if redact and isinstance(failure.row, dict):
        reason = blank(reason, hidden_values(failure.row, redact))
    return {
        "row_id": failure.row_id,
        "run_id": run_id,
        "stage": failure.stage,
        "kind": failure.kind,
        "reason": reason,
        "attempts": failure.attempts,
        "retryable": failure.retryable,
        "request_id": failure.request_id,
        "call_id": failure.call_id,
        "source": {"path": failure.path, "line": failure.line},
        "row": failure.row,
    }
