"""The parts of a job that name BigQuery: where rows come from, and where copies of a run's tables go."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

# Old projects have the domain they belong to before their name.
_PROJECT = r"(?:[a-z0-9.-]{1,120}:)?[a-z][a-z0-9-]{0,62}"
_DATASET = r"[A-Za-z_][A-Za-z0-9_]{0,1023}"
DatasetName = Annotated[str, StringConstraints(pattern=rf"^{_PROJECT}\.{_DATASET}$")]
TableName = Annotated[str, StringConstraints(pattern=rf"^{_PROJECT}\.{_DATASET}\.[A-Za-z0-9_$-]{{1,1024}}$")]
TablePrefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,99}$")]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BigQueryInput(_Settings):
    """Rows of BigQuery, from exactly one of table and query.

    Attributes:
        table: project.dataset.table.
        query: one SELECT, run once before the launch.
        project: pays for the query; None: the credentials' own, or GOOGLE_CLOUD_PROJECT.
        location: where the query runs; None: where its tables are.
        max_bytes_billed: a query that would bill more is refused, and costs nothing.
    """

    table: TableName | None = None
    query: Annotated[str, StringConstraints(min_length=1)] | None = None
    project: str | None = None
    location: str | None = None
    max_bytes_billed: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _table_or_query(self) -> Self:
        if (self.table is None) == (self.query is None):
            msg = "give exactly one of table and query"
            raise ValueError(msg)
        return self


class InputSource(_Settings):
    """What an input is read from: exactly one of path and bigquery."""

    path: str | list[str] | None = None
    bigquery: BigQueryInput | None = None

    @model_validator(mode="after")
    def _path_or_bigquery(self) -> Self:
        if (self.path is None) == (self.bigquery is None):
            msg = "needs a path, or bigquery with a table or a query (exactly one of the two)"
            raise ValueError(msg)
        for name, info in type(self).model_fields.items():
            is_set = getattr(self, name) != info.get_default(call_default_factory=True)
            if self.bigquery is not None and is_set and name not in ("bigquery", "key"):
                msg = f"has {name}, which is for files, beside bigquery, whose columns carry their own types: remove it"
                raise ValueError(msg)
        return self


class BigQuerySink(_Settings):
    """Where copies of a run's tables go when it closes.

    Attributes:
        dataset: project.dataset, which must be there.
        prefix: begins the tables' names; one for each job.
        method: file_loads: load jobs, which are free; streaming_inserts: row by row, billed by bytes.
        location: the dataset's; None: asked for.
    """

    dataset: DatasetName
    prefix: TablePrefix = "rowbeam_"
    method: Literal["file_loads", "streaming_inserts"] = "file_loads"
    location: str | None = None


class SinkSettings(_Settings):
    """Formats of the outputs. bigquery: Parquet files, and when the run closes a copy of them in BigQuery's tables."""

    enriched: Literal["parquet", "jsonl", "bigquery"] = "parquet"
    audit: Literal["parquet", "bigquery"] = "parquet"
    bigquery: BigQuerySink | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if ("bigquery" in (self.enriched, self.audit)) != (self.bigquery is not None):
            msg = "needs bigquery.dataset exactly when enriched or audit is bigquery"
            raise ValueError(msg)
        return self
