"""What a run's calls come to: counts, money, tokens, times, limits met, batches. Only LLM calls count as calls."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipelines.audit_query import plain
from pipelines.facts_numbers import describe_numbers
from pipelines.run_tables import Run, RunTables

#: The mode of batches that a provider's batch API served.
BATCH_MODE = "provider_batch_api"
#: As many as a picture shows as lines of its own.
SHOWN_BATCHES = 200
#: Points on the time line.
MOST_BUCKETS = 60

_REAL_TIME = (
    "calls WHERE call_type = 'LLM' AND batch_id NOT IN "  # noqa: S608 - our own words
    f"(SELECT batch_id FROM batches WHERE mode = '{BATCH_MODE}')"
)
_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "reasoning_output_tokens")
_BUCKET_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_GROUPS = f"""
SELECT c.request_model AS model, coalesce(b.mode, 'unknown') AS mode, c.outcome, c.status, c.lane, c.attempt > 1 AS again,
       count(*) AS calls, count(*) FILTER (c.cost_usd IS NULL) AS unknown_calls, sum(c.cost_usd) AS cost_usd,
       sum(c.waited_ms) AS waited_ms, count(*) FILTER (len(c.finish_reasons) > 0) AS replies,
       {", ".join(f"sum(c.{name}) AS {name}" for name in _TOKENS)}
FROM {{prefix}}calls c LEFT JOIN {{prefix}}batches b ON b.batch_id = c.batch_id
WHERE c.call_type = 'LLM' GROUP BY ALL
"""  # noqa: S608 - our own words


class CallGroups:
    """A run's LLM calls, counted by model, mode, outcome, lane and whether they were made again; one look at the table."""

    def __init__(self, tables: RunTables, prefix: str = "") -> None:
        self._groups = tables.select(_GROUPS.format(prefix=prefix))

    def count(self, what: str = "calls", where: Callable[[dict[str, Any]], bool] = bool) -> int:
        """Return the sum of a count over the groups that `where` takes."""
        return int(sum(group[what] or 0 for group in self._groups if where(group)))

    def by_outcome(self) -> Counter[str]:
        """Return the calls by outcome."""
        found: Counter[str] = Counter()
        for group in self._groups:
            found[group["outcome"]] += group["calls"]
        return found

    def known_usd(self) -> Decimal | None:
        """Return what the calls of known cost cost; None where there are calls and none of known cost."""
        return _known_usd(self._groups)

    def waited_s(self) -> float:
        """Return how long the real-time calls were held back, all waits added up, in seconds."""
        waits = (group["waited_ms"] for group in self._groups if group["mode"] != BATCH_MODE)
        return round(sum(waits) / 1000, 3)

    def by_model_and_mode(self) -> list[dict[str, Any]]:
        """Return the sums for each model and mode, the dearest first; a sum of tokens nobody told is null."""
        keys = dict.fromkeys((group["model"], group["mode"]) for group in self._groups)
        found = [self._sums(model, mode) for model, mode in keys]
        return sorted(found, key=lambda sums: (-Decimal(sums["cost_usd"] or 0), -sums["calls"], sums["model"]))

    def _sums(self, model: str, mode: str) -> dict[str, Any]:
        groups = [group for group in self._groups if (group["model"], group["mode"]) == (model, mode)]
        return {
            "model": model,
            "mode": mode,
            "calls": sum(group["calls"] for group in groups),
            "cost_usd": plain(_known_usd(groups)),
            "unknown_calls": sum(group["unknown_calls"] for group in groups),
            **{name: _total(group[name] for group in groups) for name in _TOKENS},
        }


def call_counts(tables: RunTables, groups: CallGroups, run: Run, prefix: str = "") -> dict[str, Any]:
    """Return the facts "calls"; reused is null of a run that did not come to its end."""
    http = tables.one(f"SELECT count(*) AS n FROM {prefix}calls WHERE call_type = 'HTTP'")["n"]  # noqa: S608
    succeeded = groups.count(where=lambda group: group["status"] == "SUCCESS")
    sent = groups.count()
    return {
        "sent": sent,
        "succeeded": succeeded,
        "failed": sent - succeeded,
        "reused": (run.manifest["counts"] or {}).get("calls", {}).get("reused"),
        "http": http,
        "retries": groups.count(where=lambda group: group["again"]),
    }


def cost_facts(tables: RunTables, groups: CallGroups, run: Run, prefix: str = "") -> dict[str, Any]:
    """Return the facts "cost".

    per_1000_rows_usd is over the rows that this run's own calls settled, so that reused rows don't make it cheap.
    """
    reasons = tables.select(
        f"SELECT coalesce(cost_reason, 'no reason given') AS reason, count(*) AS calls FROM {prefix}calls "  # noqa: S608
        "WHERE call_type = 'LLM' AND cost_usd IS NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    usd, settled = groups.known_usd(), own_rows(tables, prefix)
    per_row = usd / settled * 1000 if usd is not None and settled else None
    return {
        "usd": plain(usd),
        "unknown_calls": groups.count("unknown_calls"),
        "reasons": {each["reason"]: each["calls"] for each in reasons},
        "per_1000_rows_usd": None if per_row is None else plain(per_row.quantize(Decimal("1e-12"))),
        "by": groups.by_model_and_mode(),
        "plan": run.summary.get("estimate"),
        "budget": run.summary.get("budget"),
    }


def own_rows(tables: RunTables, prefix: str = "") -> int:
    """Return how many rows the run's own calls settled, well or not."""
    return int(tables.one(f"SELECT count(*) AS n FROM {prefix}rows WHERE answered_in_run_id = run_id")["n"])  # noqa: S608


def latency_facts(tables: RunTables) -> dict[str, Any] | None:
    """Return the facts "latency_ms", of real-time calls that brought a reply; None without any.

    Left out, because they would hide what an answer takes: errors, which come at once or after the time limit, and
    calls inside a provider's batch, which take as long as the batch.
    """
    found = describe_numbers(tables, f"SELECT latency_ms AS v FROM {_REAL_TIME} AND len(finish_reasons) > 0")  # noqa: S608
    return found and {name: found[name] for name in ("count", "p50", "p90", "p99", "max", "histogram")}


def token_facts(tables: RunTables) -> dict[str, Any]:
    """Return the facts "tokens", per call that told its tokens."""
    facts: dict[str, Any] = {}
    for name in ("input", "output"):
        query = f"SELECT {name}_tokens AS v FROM calls WHERE call_type = 'LLM'"  # noqa: S608 - our own words
        found = describe_numbers(tables, query, whole=True)
        facts[name] = found and {key: found[key] for key in ("mean", "p50", "p99", "max", "histogram")}
    return facts


def batch_facts(tables: RunTables) -> tuple[list[dict[str, Any]], int]:
    """Return the facts "batches", the newest 200 in the order they were taken up, and how many there are in all.

    Where there are more, a provider's batches go before groups of real-time calls.
    """
    found = tables.select(
        "SELECT batch_id, mode, status, submitted_at, ended_at, request_count, succeeded_count AS succeeded, "
        "failed_count AS failed, pending_count AS pending, provider_batch_id, request_model FROM batches "
        "ORDER BY mode = ? DESC, submitted_at DESC, batch_id LIMIT ?",
        [BATCH_MODE, SHOWN_BATCHES],
    )
    total = tables.one("SELECT count(*) AS n FROM batches")["n"]
    return sorted((plain(batch) for batch in found), key=lambda each: (each["submitted_at"], each["batch_id"])), total


def throttling_facts(tables: RunTables, groups: CallGroups, run: Run) -> dict[str, Any]:
    """Return the facts "throttling"; the time line is of real-time calls and counts from the run's start."""
    return {
        "rate_limited": groups.by_outcome()["rate_limited"],
        "retries": groups.count(where=lambda group: group["again"]),
        "waited_s_total": groups.waited_s(),
        "timeline": _timeline(tables, datetime.fromisoformat(run.manifest["started_at"])),
    }


def _timeline(tables: RunTables, began: datetime) -> list[dict[str, Any]]:
    span = tables.one(f"SELECT min(started_at) AS first, max(started_at) AS last FROM {_REAL_TIME}")  # noqa: S608
    if span["first"] is None:
        return []
    first, last = ((span[end] - began).total_seconds() for end in ("first", "last"))
    width = bucket_seconds(max(0.0, first), max(0.0, last))
    found = tables.select(
        "SELECT CAST(floor(greatest(0, epoch_us(started_at) - ?) / ?) AS BIGINT) AS bucket, count(*) AS calls, "  # noqa: S608
        "count(*) FILTER (outcome = 'ok') AS ok, count(*) FILTER (outcome = 'rate_limited') AS rate_limited, "
        f"quantile_cont(waited_ms, 0.5) AS waited_ms_p50 FROM {_REAL_TIME} GROUP BY 1 ORDER BY 1",
        [round(began.timestamp() * 1_000_000), width * 1_000_000],
    )
    by_bucket = {each["bucket"]: each for each in found}
    empty = {"calls": 0, "ok": 0, "rate_limited": 0, "waited_ms_p50": None}
    return [
        _bucket(index, width, by_bucket.get(index, empty))
        for index in range(found[0]["bucket"], found[-1]["bucket"] + 1)
    ]


def bucket_seconds(first_s: float, last_s: float) -> float:
    """Return the width of at most MOST_BUCKETS buckets, whose edges are multiples of it, from first_s to last_s."""
    for width in _BUCKET_SECONDS:
        if math.floor(last_s / width) - math.floor(first_s / width) < MOST_BUCKETS:
            return width
    return math.ceil((last_s - first_s) / (MOST_BUCKETS - 1) / 86_400) * 86_400.0


def _bucket(index: int, width: float, found: dict[str, Any]) -> dict[str, Any]:
    waited = found["waited_ms_p50"]
    return {
        "from_s": round(index * width, 3),
        "to_s": round((index + 1) * width, 3),
        "calls": found["calls"],
        "ok": found["ok"],
        "rate_limited": found["rate_limited"],
        "other_errors": found["calls"] - found["ok"] - found["rate_limited"],
        "waited_ms_p50": None if waited is None else round(waited, 3),
    }


def _known_usd(groups: list[dict[str, Any]]) -> Decimal | None:
    known = [group["cost_usd"] for group in groups if group["cost_usd"] is not None]
    return sum(known, Decimal(0)) if known or not groups else None


def _total(counts: Iterable[int | None]) -> int | None:
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None
