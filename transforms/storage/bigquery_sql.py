"""Names and statements with which a run's rows enter BigQuery. Pure text.

A run is published by one script: in one transaction every table loses what it has of this run (or, where rows are
replaced by their id, of these rows) and gets what was staged. Done twice, it leaves the same rows.
"""

import hashlib
import re
from datetime import date

from transforms.storage.bigquery_schema import TableSpec

#: A column of staging tables that are filled by streaming: the row's number, by which a row sent twice is known.
ORDINAL = "rowbeam_ordinal"

_UNSAFE = re.compile(r"[^A-Za-z0-9_]")


def job_id(run_id: str, target: str, *parts: str | int) -> str:
    """Return the id of one of a run's jobs: the same whenever it is asked for, and by whom.

    Args:
        run_id: the run.
        target: the dataset and prefix that are filled; a run may fill another one later.
        parts: what tells the run's jobs apart.
    """
    place = hashlib.sha256(target.encode()).hexdigest()[:8]
    return "_".join(["rowbeam", _UNSAFE.sub("_", run_id), place, *map(str, parts)])


def staging_name(prefix: str, run_id: str, table: str) -> str:
    """Return the name of the table where a run's rows wait until all are there."""
    return f"{prefix}staging_{_UNSAFE.sub('_', run_id)}_{table}"


def publish_script(moves: list[tuple[TableSpec, str, str]], run_id: str, run_date: date, *, streamed: bool) -> str:
    """Return the script that makes a run's staged rows the tables' rows, all at once.

    Args:
        moves: the table, its full name, and the full name of its staging table.
        run_id: the run.
        run_date: the day it began.
        streamed: the staging tables have the column ORDINAL, and may hold a row twice.
    """
    statements = [
        line for spec, table, staging in moves for line in _move(spec, table, staging, run_id, run_date, streamed)
    ]
    return "\n".join(["BEGIN TRANSACTION;", *statements, "COMMIT TRANSACTION;"])


def _move(spec: TableSpec, table: str, staging: str, run_id: str, run_date: date, streamed: bool) -> tuple[str, str]:
    if spec.upsert is not None:
        old = f"`{spec.upsert}` IN (SELECT `{spec.upsert}` FROM `{staging}`)"  # noqa: S608 - names that the settings let through have no quotes
    else:
        old = f"`{spec.run_date}` = DATE '{run_date}' AND `{spec.run_id}` = '{run_id}'"
    names = [f"`{name}`" for name in spec.staged.names]
    ours, values = [f"`{spec.run_date}`"], [f"DATE '{run_date}'"]
    if spec.run_id not in spec.staged.names:
        ours.append(f"`{spec.run_id}`")
        values.append(f"'{run_id}'")
    once = f" QUALIFY ROW_NUMBER() OVER (PARTITION BY `{ORDINAL}`) = 1" if streamed else ""
    # BigQuery wants a WHERE beside QUALIFY.
    source = f"`{staging}` WHERE TRUE{once}" if streamed else f"`{staging}`"
    return (
        f"DELETE FROM `{table}` WHERE {old};",  # noqa: S608 - likewise
        f"INSERT INTO `{table}` ({', '.join([*ours, *names])}) SELECT {', '.join([*values, *names])} FROM {source};",  # noqa: S608 - likewise
    )


def count_sql(staging: str) -> str:
    """Return the query that counts the rows of a staging table filled by streaming, each once."""
    return f"SELECT COUNT(DISTINCT `{ORDINAL}`) AS n FROM `{staging}`"  # noqa: S608 - likewise
