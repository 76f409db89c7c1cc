"""A run's files into staging tables: by load jobs (from the bucket, or uploaded), or row by row.

What BigQuery refuses is found and handed back, and the rest goes in: a load job takes all of a file or nothing, so a
refused file is loaded again in halves until the rows stand alone.
"""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.storage.bigquery_client import (
    WarehouseError,
    create_table,
    drop_table,
    find_table,
    library,
    retry,
    run_once,
    said,
)
from transforms.storage.bigquery_rows import json_row
from transforms.storage.bigquery_schema import Column, columns_of
from transforms.storage.bigquery_sql import ORDINAL, count_sql
from transforms.storage.objects import is_remote, local_copy, open_read

#: BigQuery's own limit on one load job.
_MAX_URIS = 10_000
#: So many refused rows in one file mean that not the rows are wrong.
_MAX_REFUSED = 20
_INVALID = "invalid"
_CHUNK_ROWS = 500
_CHUNK_BYTES = 5 << 20
_KEEP_MS = 3 * 86_400_000
_UPLOAD_TRIES = 6
_NEW_TABLE_S = 120.0
_NEW_TABLE_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that BigQuery did not take, and its words."""

    row: dict[str, Any]
    reason: str


@dataclass
class Stage:
    """The staging table of one table of one run.

    Attributes:
        service: the client.
        name: project.dataset.table.
        schema: of the files.
        job: the first part of its jobs' ids.
        refused: rows that were not taken.
    """

    service: Any
    name: str
    schema: pa.Schema
    job: str
    refused: list[Refused] = field(default_factory=list)

    def load(self, files: list[str], rows: int) -> None:
        """Bring files in by load jobs; done again after a crash, loads what is not in yet.

        Args:
            files: Parquet files, all in one bucket or all local.
            rows: in them together.

        Raises:
            WarehouseError: a load failed, and not because of single rows.
        """
        for is_last in (False, True):
            self.refused.clear()
            self._load_all(files, self._open(columns_of(self.schema)))
            found = int((find_table(self.service, self.name) or {}).get("numRows", 0))
            if found == rows - len(self.refused):
                return
            # The jobs' ids hold when the table was made: in a new one they are new.
            drop_table(self.service, self.name)
            if is_last:
                raise WarehouseError(f"{self.name}: holds {found:,} rows where {rows:,} were loaded; run the job again")

    def stream(self, files: list[str], rows: int) -> None:
        """Bring files in row by row; rows that are sent twice are told apart later, by their number.

        Raises:
            WarehouseError: BigQuery can't be reached, or rows are missing afterwards.
        """
        self._open([*columns_of(self.schema), {"name": ORDINAL, "type": "INTEGER", "mode": "NULLABLE"}])
        for chunk in _chunks(files):
            errors = self._insert(chunk)
            self.refused += [Refused(chunk[place][1], words) for place, words in errors.items()]
        with said(self.name):
            found = next(iter(self.service.query(count_sql(self.name), retry=retry()).result(retry=retry())))["n"]
        if found != rows - len(self.refused):
            raise WarehouseError(f"{self.name}: holds {found:,} rows where {rows:,} were sent; run the job again")

    def drop(self) -> None:
        """Remove the staging table; if that fails it goes by itself after three days."""
        drop_table(self.service, self.name)

    def _open(self, columns: list[Column]) -> str:
        """Make the table, unless it is there; return the first part of the ids of the jobs that fill it."""
        expires = str(int(time.time() * 1000) + _KEEP_MS)
        table = create_table(self.service, self.name, columns, expirationTime=expires)
        return f"{self.job}_{table['creationTime']}"

    def _load_all(self, files: list[str], job: str) -> None:
        if files and is_remote(files[0]):
            for number, uris in enumerate(_batched(files, _MAX_URIS)):
                self._load_uris(uris, f"{job}_{number}")
            return
        for number, path in enumerate(files):
            self._load_file(path, f"{job}_{number}")

    def _load_uris(self, uris: list[str], job: str) -> None:
        try:
            run_once(
                self.service,
                job,
                lambda name: self.service.load_table_from_uri(
                    uris, self.name, job_id=name, job_config=self._config(), retry=retry()
                ),
            )
        except WarehouseError as error:
            if error.reason != _INVALID:
                raise
            for number, uri in enumerate(uris):
                self._load_file(uri, f"{job}_{number}")

    def _load_file(self, path: str, job: str) -> None:
        try:
            with open_read(path) as opened:
                self._upload(opened, job)
        except WarehouseError as error:
            if error.reason != _INVALID:
                raise
            before = len(self.refused)
            table = pq.read_table(local_copy(path), schema=self.schema)
            self._load_halves(table, 0, len(table), job, before, error)

    def _load_halves(self, table: pa.Table, low: int, high: int, job: str, before: int, error: WarehouseError) -> None:
        """Load the rows of a slice that was refused as a whole, by halves."""
        if high - low == 1:
            self.refused.append(Refused(table.slice(low, 1).to_pylist()[0], str(error)))
            if len(self.refused) - before > _MAX_REFUSED:
                raise error
            return
        middle = (low + high) // 2
        for start, stop in ((low, middle), (middle, high)):
            buffer = io.BytesIO()
            pq.write_table(table.slice(start, stop - start), buffer)
            buffer.seek(0)
            try:
                self._upload(buffer, f"{job}_{start}_{stop}")
            except WarehouseError as again:
                if again.reason != _INVALID:
                    raise
                self._load_halves(table, start, stop, job, before, again)

    def _upload(self, opened: Any, job: str) -> None:
        run_once(
            self.service,
            job,
            lambda name: self.service.load_table_from_file(
                opened, self.name, rewind=True, job_id=name, job_config=self._config(), num_retries=_UPLOAD_TRIES
            ),
        )

    def _config(self) -> Any:
        bigquery = library()
        options = bigquery.ParquetOptions()
        options.enable_list_inference = True
        return bigquery.LoadJobConfig(
            source_format="PARQUET",
            schema=[bigquery.SchemaField.from_api_repr(column) for column in columns_of(self.schema)],
            parquet_options=options,
            decimal_target_types=["NUMERIC", "BIGNUMERIC"],
            create_disposition="CREATE_NEVER",
            write_disposition="WRITE_APPEND",
            max_bad_records=0,
        )

    def _insert(self, chunk: list[tuple[int, dict[str, Any]]]) -> dict[int, str]:
        """Send rows; return BigQuery's words for those it refuses, by their place in the chunk."""
        from google.api_core.exceptions import NotFound

        rows = [json_row(row, self.schema) | {ORDINAL: number} for number, row in chunk]
        ids = [f"{self.job}/{number}" for number, _ in chunk]
        until = time.monotonic() + _NEW_TABLE_S
        while True:
            with said(self.name):
                try:
                    errors = self.service.insert_rows_json(
                        self.name, rows, row_ids=ids, skip_invalid_rows=True, retry=retry()
                    )
                    return {error["index"]: _said_of(error["errors"]) for error in errors}
                except NotFound:  # a new table takes a while to be known to those who take rows
                    if time.monotonic() > until:
                        raise
            time.sleep(_NEW_TABLE_WAIT_S)


def _batched(items: list[str], most: int) -> Iterator[list[str]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]


def _chunks(files: list[str]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Yield numbered rows in chunks that one request may hold."""
    chunk: list[tuple[int, dict[str, Any]]] = []
    number = size = 0
    for path in files:
        with open_read(path) as opened, pq.ParquetFile(opened) as parquet:
            for batch in parquet.iter_batches(_CHUNK_ROWS):
                row_bytes = batch.nbytes // max(1, batch.num_rows)
                for row in batch.to_pylist():
                    chunk.append((number, row))
                    number, size = number + 1, size + row_bytes
                    if len(chunk) >= _CHUNK_ROWS or size >= _CHUNK_BYTES:
                        yield chunk
                        chunk, size = [], 0
    if chunk:
        yield chunk


def _said_of(errors: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"{error.get('location') or 'row'}: {error.get('message') or error.get('reason')}" for error in errors
    )
