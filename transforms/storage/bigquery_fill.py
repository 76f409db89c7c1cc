"""The copy of a closed run's files in BigQuery: checked before a run, filled after it, once.

The files stay the proof; BigQuery gets a copy when the manifest is written. Rows go to staging tables first, and one
transaction makes them the tables' rows; then the receipt `runs/<run_id>/bigquery.json` says so. A run without a receipt
is filled by the next run of the job, oldest first, so that what was replaced later stays replaced.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.records.bigquery_settings import BigQuerySink, SinkSettings
from transforms.records.errors import ConfigError
from transforms.storage.bigquery_client import (
    WarehouseError,
    client,
    create_table,
    dataset_location,
    find_table,
    is_done,
    retry,
    run_once,
    set_columns,
)
from transforms.storage.bigquery_letters import count_letters, count_refused, keep_refused, write_letters
from transforms.storage.bigquery_schema import (
    TableSpec,
    audit_spec,
    enriched_spec,
    missing_columns,
    row_id_column,
)
from transforms.storage.bigquery_sql import job_id, publish_script, staging_name
from transforms.storage.bigquery_stage import Refused, Stage
from transforms.storage.objects import exists, join, open_read, write_atomic
from transforms.storage.run_folder import RUNNING, RunFolder, list_runs

AUDIT_TABLES = ("runs", "batches", "batch_members", "calls", "rows")


@dataclass(frozen=True, slots=True)
class Filled:
    """What of a run is in BigQuery.

    Attributes:
        run_id: the run.
        rows: rows in it, by the table's full name.
        refused: rows that BigQuery did not take, by the table's full name.
        refused_folder: where those rows are, with the reasons.
    """

    run_id: str
    rows: dict[str, int]
    refused: dict[str, int]
    refused_folder: str

    @property
    def refused_count(self) -> int:
        """Rows that BigQuery did not take."""
        return sum(self.refused.values())


def check_tables(sinks: SinkSettings, schema: pa.Schema, field: str) -> None:
    """Check that the tables which are there can take the job's rows; changes nothing.

    Args:
        sinks: the job's; nothing is done where they don't name BigQuery.
        schema: of the enriched files.
        field: the job's answer.field.

    Raises:
        ConfigError: the library or the dataset is missing, BigQuery refuses, or a column has another type.
    """
    for spec, name, service in _tables(sinks, schema, field):
        _lacking(service, spec, name)


def open_tables(sinks: SinkSettings, schema: pa.Schema, field: str) -> None:
    """Create the tables that are not there, and add the columns that are missing; what `check_tables` checks holds.

    Raises:
        ConfigError: as `check_tables` says, or tables can't be made here.
    """
    for spec, name, service in _tables(sinks, schema, field):
        found, columns = _lacking(service, spec, name)
        try:
            if found is None:
                partitions = {"type": "DAY", "field": spec.run_date}
                clustering = {"fields": [spec.clustered]}
                create_table(service, name, spec.columns, timePartitioning=partitions, clustering=clustering)
            elif columns is not None:
                set_columns(service, found, columns)
        except WarehouseError as error:
            raise ConfigError(f"sinks.bigquery: {error}") from error


def unfilled_runs(output: str) -> list[dict[str, Any]]:
    """Return the manifests of closed runs that BigQuery should have and has no receipt of, oldest first."""
    return [
        manifest
        for manifest in list_runs(output)
        if manifest["status"] != RUNNING
        and (manifest["job"].get("sinks") or {}).get("bigquery")
        and not exists(_receipt(RunFolder(output, manifest["run_id"])))
    ]


def fill_run(output: str, manifest: dict[str, Any]) -> Filled:
    """Bring a closed run's rows into BigQuery, unless they are there, and write the receipt.

    Args:
        output: the job's.
        manifest: the run's final one, which names its files and its sinks.

    Raises:
        WarehouseError: BigQuery can't be reached or refuses; done again, this goes on where it stopped.
        ConfigError: the library is missing.
    """
    folder = RunFolder(output, manifest["run_id"])
    sinks = SinkSettings.model_validate(manifest["job"]["sinks"])
    sink = _sink(sinks)
    service = _service(sink)
    publish = job_id(folder.run_id, _target(sink), "publish")
    sources = list(_sources(folder, manifest, sinks))
    if not is_done(service, publish):
        _publish(service, sink, folder, manifest, sources, publish)
    filled = _count(folder, sink, sources)
    facts = {"run_id": filled.run_id, "rows": filled.rows, "refused": filled.refused, "job_id": publish}
    write_atomic(_receipt(folder), orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return filled


@dataclass(frozen=True, slots=True)
class _Source:
    """The files of one table: their paths, and the rows in them."""

    spec: TableSpec
    paths: list[str]
    rows: int


def _tables(sinks: SinkSettings, schema: pa.Schema, field: str) -> Iterator[tuple[TableSpec, str, Any]]:
    """Yield each table of the job with its full name and the client."""
    if sinks.bigquery is None:
        return
    specs = [enriched_spec(schema, field)] if sinks.enriched == "bigquery" else []
    specs += [audit_spec(name) for name in AUDIT_TABLES] if sinks.audit == "bigquery" else []
    try:
        service = _service(sinks.bigquery)
        for spec in [*specs, audit_spec("dead_letters")]:
            yield spec, _name(sinks.bigquery, spec.name), service
    except WarehouseError as error:
        raise ConfigError(f"sinks.bigquery: {error}") from error


def _lacking(service: Any, spec: TableSpec, name: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]] | None]:
    """Return the table, or None, and the columns it should have, or None where it lacks nothing."""
    columns = spec.columns
    try:
        found = find_table(service, name)
    except WarehouseError as error:
        raise ConfigError(f"sinks.bigquery: {error}") from error
    if found is None:
        return None, columns
    return found, missing_columns(found.get("schema", {}).get("fields", []), columns, name)


def _sources(folder: RunFolder, manifest: dict[str, Any], sinks: SinkSettings) -> Iterator[_Source]:
    places = {f"audit/{name}": audit_spec(name) for name in AUDIT_TABLES} if sinks.audit == "bigquery" else {}
    listed: dict[str, list[dict[str, Any]]] = {}
    for file in manifest["files"]:
        listed.setdefault(file["path"].rpartition("/")[0], []).append(file)
    if sinks.enriched == "bigquery" and "enriched" in listed:
        with open_read(join(folder.path, listed["enriched"][0]["path"])) as opened:
            schema = pq.read_schema(opened).remove_metadata()
        places["enriched"] = enriched_spec(schema, manifest["job"]["answer"]["field"])
    for place, spec in places.items():
        files = [file for file in listed.get(place, []) if file["rows"]]
        yield _Source(spec, [join(folder.path, file["path"]) for file in files], sum(file["rows"] for file in files))


def _publish(
    service: Any, sink: BigQuerySink, folder: RunFolder, manifest: dict[str, Any], sources: list[_Source], job: str
) -> None:
    """Stage every table, then make the staged rows the tables' rows in one transaction."""
    staged: list[tuple[TableSpec, Stage]] = []
    refused: dict[str, list[Refused]] = {}
    for source in sources:
        if source.rows:
            stage = _staged(service, sink, folder.run_id, source)
            staged.append((source.spec, stage))
            refused[_name(sink, source.spec.name)] = stage.refused
    keep_refused(folder, refused)
    field = manifest["job"]["answer"]["field"]
    path, count = write_letters(folder, refused, row_id_column(field))
    if count:
        letters = _Source(audit_spec("dead_letters"), [path], count)
        staged.append((letters.spec, _staged(service, sink, folder.run_id, letters)))
    moves = [(spec, _name(sink, spec.name), stage.name) for spec, stage in staged]
    script = publish_script(moves, folder.run_id, _run_date(manifest), streamed=_is_streamed(sink))
    if moves:
        run_once(service, job, lambda name: service.query(script, job_id=name, job_retry=None, retry=retry()))
    for _, stage in staged:
        stage.drop()


def _staged(service: Any, sink: BigQuerySink, run_id: str, source: _Source) -> Stage:
    name = staging_name(sink.prefix, run_id, source.spec.name)
    job = job_id(run_id, _target(sink), source.spec.name)
    if not _is_streamed(sink):
        stage = Stage(service, f"{sink.dataset}.{name}", source.spec.staged, job)
        stage.load(source.paths, source.rows)
        return stage
    # Rows sent to a table that was dropped and made again may be lost: each try has a table of its own.
    stage = Stage(service, f"{sink.dataset}.{name}_{secrets.token_hex(4)}", source.spec.staged, job)
    stage.stream(source.paths, source.rows)
    return stage


def _count(folder: RunFolder, sink: BigQuerySink, sources: list[_Source]) -> Filled:
    rows, refused = {}, {}
    for source in sources:
        name = _name(sink, source.spec.name)
        lost = count_refused(folder, name)
        rows[name] = source.rows - lost
        if lost:
            refused[name] = lost
    rows[_name(sink, "dead_letters")] = count_letters(folder) + sum(refused.values())
    return Filled(folder.run_id, rows, refused, join(folder.path, "bigquery"))


def _service(sink: BigQuerySink) -> Any:
    """Return a client whose jobs run where the dataset is."""
    project = sink.dataset.rpartition(".")[0]
    location = sink.location or dataset_location(client(project, None), sink.dataset)
    return client(project, location)


def _sink(sinks: SinkSettings) -> BigQuerySink:
    if sinks.bigquery is None:
        raise ConfigError("sinks.bigquery: is missing; this job does not write to BigQuery")
    return sinks.bigquery


def _name(sink: BigQuerySink, table: str) -> str:
    return f"{_target(sink)}{table}"


def _target(sink: BigQuerySink) -> str:
    return f"{sink.dataset}.{sink.prefix}"


def _is_streamed(sink: BigQuerySink) -> bool:
    return sink.method == "streaming_inserts"


def _run_date(manifest: dict[str, Any]) -> date:
    return datetime.fromisoformat(manifest["started_at"]).date()


def _receipt(folder: RunFolder) -> str:
    return join(folder.path, "bigquery.json")
