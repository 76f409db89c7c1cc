"""What earlier runs of a job say of its requests: the tokens that were really used, from their audit tables.

Reads a few columns of the newest runs' Parquet files, up to a number of calls; writes nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.prepare import PreparedJob
from transforms.storage.objects import list_files, local_copy, read_bytes
from transforms.storage.run_folder import RunFolder, run_ids

_COLUMNS = ["request_id", "input_tokens", "output_tokens", "template_sha256", "lane"]
_RUNS = 10
_CALLS = 300_000
_OUTPUTS = 5_000
_ENOUGH = 500


@dataclass(slots=True)
class EarlierCalls:
    """Token counts of earlier calls.

    Attributes:
        input_tokens: by request id, of those asked for; the newest call of each.
        input_run_id: the newest run that gave any of them.
        output_tokens: of calls of the same template, model and schema, the newest first.
        output_run_id: the newest run that gave any of these.
    """

    input_tokens: dict[str, int] = field(default_factory=dict)
    input_run_id: str | None = None
    output_tokens: list[int] = field(default_factory=list)
    output_run_id: str | None = None


def read_earlier_calls(prepared: PreparedJob, request_ids: list[str]) -> EarlierCalls:
    """Look the requests up in the newest finished runs of the job's output that asked the same model the same way.

    Args:
        prepared: the job.
        request_ids: a sample; a few hundred.
    """
    found = EarlierCalls()
    wanted = pa.array(request_ids, pa.string())
    calls = 0
    for run_id, table in _tables(prepared):
        calls += len(table)
        _add_inputs(found, run_id, table.filter(pc.is_in(table["request_id"], wanted)))
        _add_outputs(found, run_id, table.filter(pc.equal(table["template_sha256"], prepared.template.template_sha256)))
        if calls >= _CALLS or (len(found.input_tokens) >= _ENOUGH and len(found.output_tokens) >= _OUTPUTS):
            break
    return found


def _add_inputs(found: EarlierCalls, run_id: str, table: pa.Table) -> None:
    for request_id, tokens in zip(table["request_id"].to_pylist(), table["input_tokens"].to_pylist(), strict=True):
        if tokens:
            found.input_tokens.setdefault(request_id, tokens)
            found.input_run_id = found.input_run_id or run_id


def _add_outputs(found: EarlierCalls, run_id: str, table: pa.Table) -> None:
    known = [tokens for tokens in table["output_tokens"].to_pylist() if tokens is not None]
    room = _OUTPUTS - len(found.output_tokens)
    if known and room > 0:
        # Spread over the run, and the same each time.
        found.output_tokens += known[:: -(-len(known) // room)]
        found.output_run_id = found.output_run_id or run_id


def _tables(prepared: PreparedJob) -> Iterator[tuple[str, pa.Table]]:
    """Yield the first questions' calls of each run, the newest run first, file by file."""
    output = prepared.job.output
    for run_id in run_ids(output)[: -_RUNS - 1 : -1]:
        folder = RunFolder(output, run_id)
        if not _asked_alike(folder, prepared):
            continue
        for path in list_files(folder.table("calls"), ".parquet"):
            for table in _row_groups(path):
                yield run_id, table.filter(pc.equal(table["lane"], "main"))


def _row_groups(path: str) -> Iterator[pa.Table]:
    """Yield a file's row groups; a file that can't be read has nothing to tell: this is a forecast."""
    try:
        with pq.ParquetFile(local_copy(path)) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=_COLUMNS)
    except (OSError, pa.ArrowException, KeyError):
        return


def _asked_alike(folder: RunFolder, prepared: PreparedJob) -> bool:
    """Say whether a run asked the model that this job asks, in the same way."""
    try:
        job = orjson.loads(read_bytes(folder.manifest))["job"]
        return _asked(job) == _asked(prepared.job.model_dump(mode="json", by_alias=True))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _asked(job: Mapping[str, Any]) -> dict[str, Any]:
    model, answer = job["model"], job["answer"]
    names = ("provider", "name", "api", "base_url", "deployment", "params")
    return {name: model.get(name) for name in names} | {name: answer.get(name) for name in ("schema", "python")}
