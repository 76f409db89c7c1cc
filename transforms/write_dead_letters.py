"""WriteDeadLetters: DeadLetter -> JSON lines in the run's `dead_letters/` folder.

One object a line: row_id, run_id, stage, kind, reason, attempts, retryable, request_id, call_id,
source {path, line}, row (DESIGN section 4). Nothing is written when nothing failed.
"""

from typing import Any

import apache_beam as beam
import orjson
from apache_beam import pvalue

from transforms.records.failure import DeadLetter
from transforms.storage.tables import json_default


class WriteDeadLetters(beam.PTransform):
    """Write rows that got no valid answer.

    Args:
        folder: the run's dead_letters folder.
        run_id: the run, named in each line.
    """

    def __init__(self, folder: str, run_id: str) -> None:
        super().__init__()
        self._folder = folder
        self._run_id = run_id

    def expand(self, failures: pvalue.PCollection) -> Any:
        """Encode and write."""
        return (
            failures
            | "EncodeJson" >> beam.Map(_encode, self._run_id)
            | "WriteJsonLines"
            >> beam.io.WriteToText(
                f"{self._folder}/part",
                file_name_suffix=".jsonl",
                coder=beam.coders.BytesCoder(),
                skip_if_empty=True,
            )
        )


def _encode(failure: DeadLetter, run_id: str) -> bytes:
    return orjson.dumps(
        {
            "row_id": failure.row_id,
            "run_id": run_id,
            "stage": failure.stage,
            "kind": failure.kind,
            "reason": failure.reason,
            "attempts": failure.attempts,
            "retryable": failure.retryable,
            "request_id": failure.request_id,
            "call_id": failure.call_id,
            "source": {"path": failure.path, "line": failure.line},
            "row": failure.row,
        },
        default=json_default,
    )
