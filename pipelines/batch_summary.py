"""What became of a run's provider batches, for its summary: from its audit table `batches` and the ledger.

The table says how the run left each batch it had to do with; which run submitted it, only the ledger knows.
"""

from typing import Any

import pyarrow.parquet as pq

from pipelines.batch_words import LEFT, MODE
from transforms.storage.batch_fold import read_entry
from transforms.storage.objects import list_files, local_copy
from transforms.storage.runs import RunFolder

_NOT_TAKEN = "not_taken"
_COLUMNS = ["batch_key", "mode", "status", "provider_batch_id"]


def count_batches(run: RunFolder, ledger: str) -> dict[str, int]:
    """Return how many provider batches a run {"submitted", "collected", "left", "not_taken"}.

    submitted: the run brought it to the provider, or found there what became of a create without a reply. collected:
    its results are in, whichever run submitted it. left: it waits for the next run, at the provider or not submitted
    yet. not_taken: the provider did not take it, so its requests went another way.

    Args:
        run: the run; without audit tables there are no batches.
        ledger: the job's ledger folder.

    Raises:
        InternalError: the ledger is damaged.
    """
    found = [batch for path in list_files(run.table("batches"), ".parquet") for batch in _read(path)]
    left = sum(batch["status"] in LEFT for batch in found)
    not_taken = sum(batch["status"] == _NOT_TAKEN for batch in found)
    return {
        "submitted": sum(_is_submitted_by(run.run_id, ledger, batch["batch_key"]) for batch in found),
        "collected": len(found) - left - not_taken,
        "left": left,
        "not_taken": not_taken,
    }


def _read(path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(
        local_copy(path), columns=_COLUMNS, filters=[("mode", "=", MODE)]
    ).to_pylist()
    return rows


def _is_submitted_by(run_id: str, ledger: str, key: str) -> bool:
    entry = read_entry(ledger, key)
    return entry is not None and entry.handle is not None and entry.handle.run_id == run_id
