"""What tests of whole runs share: inputs, job files, runs, and their outputs read back by DuckDB."""

import atexit
import csv
import random
import shlex
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import orjson
import yaml

from pipelines.job import load_job
from pipelines.run import RunRequest, run_job
from pipelines.summary import RunResult

MODEL = "gpt-4o-mini-2024-07-18"
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["positive", "negative", "neutral"]},
        "confidence": {"type": "integer", "minimum": 0, "maximum": 100},
    },
    "required": ["label", "confidence"],
    "additionalProperties": False,
}
TEMPLATE = "Label the sentiment of this review.\n\nReview: {{ row.text }}"

_REVIEWS = Path(__file__).resolve().parents[3] / "shared" / "data" / "amazon_reviews.csv"
_WORDS = ("the", "a", "this", "my", "player", "camera", "remote", "sound", "picture", "works", "broke", "great", "poor")


def review_rows(count: int) -> list[dict[str, str]]:
    """Return rows of real reviews where they lie beside the repository, else made-up ones of their size."""
    if _REVIEWS.is_file():
        with _REVIEWS.open(encoding="utf-8", newline="") as file:
            rows = [row for row, _ in zip(csv.DictReader(file), range(count), strict=False)]
        if len(rows) == count:
            return rows
    draw = random.Random(7)
    texts = [" ".join(draw.choices(_WORDS, k=draw.randint(4, 40))) for _ in range(count)]
    ratings = [str(draw.randint(-200, 200) / 100) for _ in range(count)]
    numbered = enumerate(zip(texts, ratings, strict=True))
    return [{"id": f"1_{number}", "text": text, "human_rating": rating} for number, (text, rating) in numbered]


def plain_rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """Return rows whose texts all differ, so that rows and requests are one to one."""
    return [{"id": f"r{n}", "text": f"Review number {n}: it works."} for n in range(start, start + count)]


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    """Write rows with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return base with the changes put in, key by key."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def write_job(folder: Path, base_url: str, **changes: Any) -> Path:
    """Write a job file over `reviews.csv` in `folder` and return its path; changes are merged in."""
    job = {
        "name": "conformance",
        "input": {"path": "reviews.csv", "key": ["id"]},
        "output": "out",
        "prompt": {"system": "You label customer reviews.", "template": TEMPLATE},
        "answer": {"field": "sentiment", "schema": SCHEMA},
        "model": {"provider": "openai", "name": MODEL, "base_url": base_url, "params": {"max_output_tokens": 200}},
        "batching": {"group_size": 100},
        "pool": {"max_in_flight": 100, "timeout": "20s", "deadline": "60s", "max_attempts": 10},
        "limits": {"max_dead_letter_ratio": 1.0},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(merge(job, changes)), encoding="utf-8")
    return path


def run(job: Path, *overrides: str, runner: str = "FnApiRunner") -> RunResult:
    """Run a job file, with `--set` overrides, on a runner, as `beam_args` takes it."""
    return run_job(RunRequest(load_job(str(job), overrides), beam_args(runner)))


def beam_args(runner: str) -> list[str]:
    """Return Beam's arguments for a runner: its name, and what else it is to be told, between spaces."""
    return shlex.split(f"--runner={runner}")


@cache
def database() -> Any:
    """Return the process's database, to be used by way of a cursor: opening one takes longer than most queries."""
    # DuckDB complains of what outlives it, be it a type in an annotation.
    atexit.register(database.cache_clear)
    return duckdb.connect(config={"threads": 1, "enable_external_file_cache": False})


class Output:
    """An output folder read back; every method reads the files anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def query(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """Run SQL in which {calls}, {rows} ... stand for the audit tables of all runs, and $1 ... for values."""
        names = ("runs", "batches", "batch_members", "calls", "rows")
        found = {name: self._parquet(f"runs/*/audit/{name}") for name in names}
        with database().cursor() as cursor:
            cursor.execute(sql.format(**found), values)
            columns = [column[0] for column in cursor.description]
            return [dict(zip(columns, values, strict=True)) for values in cursor.fetchall()]

    def values(self, sql: str, *values: object) -> list[Any]:
        """Return the first column of a query."""
        return [next(iter(row.values())) for row in self.query(sql, *values)]

    def enriched(self, run_id: str) -> list[dict[str, Any]]:
        """Return a run's enriched rows."""
        if not list((self.folder / "runs" / run_id / "enriched").glob("*.parquet")):
            return []
        return self.query("from " + self._parquet(f"runs/{run_id}/enriched"))

    def dead_letters(self, run_id: str) -> list[dict[str, Any]]:
        """Return a run's dead letters."""
        files = sorted((self.folder / "runs" / run_id / "dead_letters").glob("*.jsonl"))
        return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]

    def row_ends(self, run_id: str) -> dict[str, str]:
        """Return row_id -> outcome of a run's audit rows; fails on a row_id that is there twice."""
        ends = self.query("select row_id, outcome from {rows} where run_id = $1", run_id)
        found = {end["row_id"]: end["outcome"] for end in ends}
        assert len(found) == len(ends)
        return found

    def summary(self, run_id: str) -> dict[str, Any]:
        """Return a run's summary.json."""
        summary: dict[str, Any] = orjson.loads((self.folder / "runs" / run_id / "summary.json").read_bytes())
        return summary

    def ledger_calls(self) -> list[dict[str, Any]]:
        """Return every call record of the ledger; a line torn by a kill is left out."""
        calls = []
        for segment in sorted((self.folder / "ledger" / "answers").glob("*.jsonl")):
            for line in segment.read_bytes().split(b"\n")[:-1]:
                calls += [orjson.loads(line)] if b'"type":"call"' in line else []
        return calls

    def _parquet(self, folder: str) -> str:
        return f"read_parquet('{self.folder}/{folder}/*.parquet', hive_partitioning = false)"


#: SQL that finds references without their target; every one must give nothing.
BROKEN_REFERENCES = {
    "rows.run_id": "select row_id from {rows} where run_id not in (select run_id from {runs})",
    "rows.request_id": "select row_id from {rows} where request_id is not null"
    " and request_id not in (select request_id from {batch_members})",
    "rows.call_id": "select row_id from {rows} where call_id is not null and call_id not in (select call_id from {calls})",
    "rows.answered_in_run_id": "select r.row_id from {rows} r left join {calls} c using (call_id)"
    " where r.call_id is not null and r.answered_in_run_id is distinct from c.run_id",
    "calls.run_id": "select call_id from {calls} where run_id not in (select run_id from {runs})",
    "calls.batch_id": "select call_id from {calls} c left join {batches} b using (batch_id, run_id)"
    " where b.mode is null",
    "calls.custom_id": "select c.call_id from {calls} c left join {batch_members} m"
    " on m.batch_id = c.batch_id and m.custom_id = c.custom_id where m.request_id is distinct from c.request_id",
    "calls.root_request_id": "select call_id from {calls} where root_request_id not in"
    " (select request_id from {batch_members})",
    "batches.run_id": "select batch_id from {batches} where run_id not in (select run_id from {runs})",
    "batch_members.batch_id": "select batch_id from {batch_members} where batch_id not in (select batch_id from {batches})",
    "calls.call_id is unique": "select call_id from {calls} group by call_id having count(*) > 1",
    "batches are unique": "select batch_id from {batches} group by batch_id, run_id having count(*) > 1",
    "runs.run_id is unique": "select run_id from {runs} group by run_id having count(*) > 1",
    "members are unique": "select custom_id from {batch_members} group by batch_id, custom_id having count(*) > 1",
    "call_index has gaps or twins": "select batch_id from {calls} group by batch_id having min(call_index) <> 0"
    " or max(call_index) <> count(*) - 1 or count(distinct call_index) <> count(*)",
    "request_count is true": "select b.batch_id from {batches} b join (select batch_id, count(*) as n from"
    " {batch_members} group by batch_id) m using (batch_id) where b.request_count <> m.n",
}


def broken_references(output: Output) -> dict[str, list[Any]]:
    """Return what does not resolve, by reference; empty when all is well."""
    found = {name: output.values(sql) for name, sql in BROKEN_REFERENCES.items()}
    return {name: ids for name, ids in found.items() if ids}


def exact_sum(values: Iterable[Decimal | None]) -> Decimal:
    """Add up what is known."""
    return sum((value for value in values if value is not None), Decimal(0))


def answers_by_id(rows: list[dict[str, Any]], key: str = "id") -> dict[str, Any]:
    """Return each row by its key; fails on a key that is there twice."""
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows)
    return found
