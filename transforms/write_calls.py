"""WriteCalls: CallRecord -> parts of the audit table `calls`.

Written while other calls are still out, in the stage that makes them. What a runner throws away is not in these
parts, so the end of the run counts them against the ledger (`transforms.storage.close_audit`).
"""

from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from transforms._sink import WritePartDoFn
from transforms.storage.audit_rows import call_row
from transforms.storage.runs import RunFolder
from transforms.storage.tables import AUDIT_SCHEMAS


class WriteCalls(beam.PTransform):
    """Write one row per call; gives (folder, path) of each part.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self._run = run

    def expand(self, calls: pvalue.PCollection) -> Any:
        """Map and write."""
        write = WritePartDoFn(self._run.table("calls"), AUDIT_SCHEMAS["calls"])
        return calls | "CallRow" >> beam.Map(call_row) | "WritePart" >> beam.ParDo(write)
