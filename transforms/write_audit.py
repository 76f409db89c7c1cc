"""WriteAudit: RowOutcome -> parts of the audit table `rows`.

The other tables come at the end of the run, from the ledger, which also holds the calls of bundles that a runner
threw away and tried again: batches and batch_members always, and calls too unless the parts that WriteCalls wrote
hold exactly the ledger's calls (`transforms.storage.close_audit.write_call_tables`).
"""

from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from transforms._sink import WritePartDoFn
from transforms.storage.audit_rows import row_row
from transforms.storage.runs import RunFolder
from transforms.storage.tables import AUDIT_SCHEMAS


class WriteAudit(beam.PTransform):
    """Write one row per input row: where it ended and by which call; gives (folder, path) of each part.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self._run = run

    def expand(self, outcomes: pvalue.PCollection) -> Any:
        """Map and write."""
        write = WritePartDoFn(self._run.table("rows"), AUDIT_SCHEMAS["rows"])
        return outcomes | "RowRecord" >> beam.Map(row_row, self._run.run_id) | "WritePart" >> beam.ParDo(write)
