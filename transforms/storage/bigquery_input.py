"""Rows of BigQuery as a job's input: a table, or what a query gives, in pieces that several workers read.

A table is read as it is, by ranges of row numbers (tabledata.list, which costs nothing), and must not change meanwhile.
A query runs once, before the launch, and its result, which BigQuery keeps for a day, is read in the same way; so is
all that can't be listed: a view, an external table, a table with rows in its streaming buffer.

Source: https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/list and
https://cloud.google.com/bigquery/docs/cached-results.
"""

import hashlib
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from transforms.records.bigquery_settings import BigQueryInput
from transforms.records.errors import ConfigError, InputError
from transforms.records.row import RawRow
from transforms.storage.bigquery_client import WarehouseError, client, find_table, library, retry, said
from transforms.storage.bigquery_rows import converters
from transforms.storage.bigquery_schema import Column, arrow_schema
from transforms.storage.input_schema import InputColumn, InputFile, InputSchema

_KEY = "input.bigquery"
_TABLE = "table"
_JOB = "job"
#: Rows that one worker reads at a time.
UNIT_ROWS = 50_000


def expand_bigquery(settings: BigQueryInput) -> InputFile:
    """Return the input as one file whose row groups are ranges of rows; a query is run for it.

    Raises:
        InputError: there is no such table, the query is wrong or would bill too much, or BigQuery refuses.
        ConfigError: the library is missing.
    """
    service = client(settings.project, settings.location)
    try:
        if settings.query is not None:
            return _run_query(service, settings, settings.query, _query_path(settings.query))
        return _table_file(service, settings, settings.table or "")
    except WarehouseError as error:
        raise InputError(f"{_KEY}: {error}") from error


def query_bytes(file: InputFile) -> int | None:
    """Return the bytes that a query read to give this input, which is what BigQuery bills; None where none was run."""
    return file.size if file.location.startswith(f"{_JOB}:") else None


def bigquery_schema(file: InputFile, settings: BigQueryInput) -> InputSchema:
    """Return the columns of the table, or of the query's result.

    Raises:
        InputError: a column's type can't be read.
    """
    try:
        schema = arrow_schema(_columns(file, settings), file.path)
    except WarehouseError as error:
        raise InputError(f"{_KEY}: {error}") from error
    return InputSchema(tuple(InputColumn(name, "native") for name in schema.names), schema)


def read_bigquery(
    file: InputFile, settings: BigQueryInput, start: int = 0, stop: int | None = None
) -> Iterator[RawRow]:
    """Yield the rows of the ranges from `start` up to, not including, `stop` (None: the last).

    Raises:
        WarehouseError: BigQuery can't be reached, or the table is not any more what it was at the launch.
    """
    before = [0, *accumulate(file.group_rows)]
    first, last = before[start], before[len(file.group_rows) if stop is None else stop]
    columns = _columns(file, settings)
    names, convert = [column["name"] for column in columns], converters(columns)
    special = [(place, change) for place, change in enumerate(convert) if change is not None]
    line = first
    with said(file.path):
        for row in _rows(file, settings, first, last - first):
            values = list(row.values())
            for place, change in special:
                values[place] = change(values[place])
            line += 1
            yield RawRow(dict(zip(names, values, strict=True)), file.path, line)
    if line != last:
        raise WarehouseError(f"{file.path}: gave rows up to {line:,} where {last:,} were asked for; run the job again")
    _columns(file, settings)  # raises where the table was changed meanwhile


def _table_file(service: Any, settings: BigQueryInput, name: str) -> InputFile:
    table = _found(service, name)
    path = f"bigquery:{name}"
    if not _is_listable(table):
        return _run_query(service, settings, _select(name), path)
    with said(name):
        page = service.list_rows(library().Table.from_api_repr(table), max_results=1, retry=retry())
        next(page.pages, None)  # the count comes with the first page
    rows, size = int(page.total_rows or 0), int(table.get("numBytes", 0))
    return InputFile(path, f"{_TABLE}:{name}", "bigquery", False, size or rows, _ranges(rows), _version(table))


def _found(service: Any, name: str) -> dict[str, Any]:
    table = find_table(service, name)
    if table is None:
        raise InputError(f"{_KEY}.table: there is no table {name}; correct it (project.dataset.table)")
    return table


def _is_listable(table: dict[str, Any]) -> bool:
    return table.get("type", "TABLE") in ("TABLE", "SNAPSHOT", "CLONE") and not table.get("streamingBuffer")


def _select(name: str) -> str:
    return f"SELECT * FROM `{name}`"  # noqa: S608 - a name that the settings let through has no quotes


def _query_path(query: str) -> str:
    return f"bigquery:query-{hashlib.sha256(query.encode()).hexdigest()[:12]}"


def _version(table: dict[str, Any]) -> str:
    return f"{table.get('lastModifiedTime')}/{table.get('numRows')}"


def _ranges(rows: int) -> tuple[int, ...]:
    whole, rest = divmod(rows, UNIT_ROWS)
    return (UNIT_ROWS,) * whole + ((rest,) if rest else ())


def _run_query(service: Any, settings: BigQueryInput, query: str, path: str) -> InputFile:
    _check_query(service, query)
    config = library().QueryJobConfig(maximum_bytes_billed=settings.max_bytes_billed)
    with said(_KEY):
        job = service.query(query, job_config=config, retry=retry())
        rows = job.result(max_results=0, retry=retry()).total_rows or 0
    location = f"{_JOB}:{job.project}:{job.location}:{job.job_id}"
    # An input of no size counts as empty.
    size = int(job.total_bytes_processed or 0) or min(rows, 1)
    return InputFile(path, location, "bigquery", False, size, _ranges(rows))


def _check_query(service: Any, query: str) -> None:
    """Refuse what is no query, by a dry run: nothing is run, and nothing billed."""
    config = library().QueryJobConfig(dry_run=True)
    with said(_KEY):
        job = service.query(query, job_config=config, retry=retry())
    if job.statement_type not in (None, "SELECT"):
        raise ConfigError(f"{_KEY}.query: is a {job.statement_type}, and nothing was run; write one SELECT")


def _columns(file: InputFile, settings: BigQueryInput) -> list[Column]:
    kind, _, rest = file.location.partition(":")
    service = client(settings.project, settings.location)
    if kind == _TABLE:
        table = _found(service, rest)
        if _version(table) != file.version:
            raise WarehouseError(
                f"{file.path}: was changed while it is read; run the job again, or read a query "
                f"({_KEY}.query), whose result stays what it is"
            )
        return list(table.get("schema", {}).get("fields", []))
    with said(file.path):
        result = _job(service, rest).result(max_results=0, retry=retry())
        return [field.to_api_repr() for field in result.schema]


def _rows(file: InputFile, settings: BigQueryInput, first: int, count: int) -> Any:
    service = client(settings.project, settings.location)
    kind, _, rest = file.location.partition(":")
    if kind == _TABLE:
        return service.list_rows(
            service.get_table(rest, retry=retry()), start_index=first, max_results=count, retry=retry()
        )
    return _job(service, rest).result(start_index=first, max_results=count, retry=retry())


def _job(service: Any, place: str) -> Any:
    project, location, job_id = place.split(":")
    return service.get_job(job_id, project=project, location=location, retry=retry())
