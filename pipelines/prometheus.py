"""A run's figures as a Prometheus text file, for node_exporter's textfile collector or a push by the scheduler.

Gauges with the labels job and, where it says something, outcome or kind; never an id as a label but in
`rowbeam_run_info`. What is not known is left out and never 0. Source: Prometheus' exposition formats.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest


def prometheus_text(summary: dict[str, Any], manifest: dict[str, Any]) -> bytes:
    """Return the text of a run's file.

    Args:
        summary: what summary.json holds.
        manifest: the run's final manifest.
    """
    registry = CollectorRegistry()
    job = summary["job"]

    def gauge(name: str, says: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(f"rowbeam_run_{name}", says, ["job", *labels], registry=registry)

    def one(name: str, says: str, value: Any) -> None:
        if value is not None:
            gauge(name, says).labels(job).set(float(value))

    def several(name: str, says: str, label: str, values: dict[str, Any]) -> None:
        known = {key: value for key, value in values.items() if value is not None}
        if known:
            metric = gauge(name, says, [label])
            for key, value in known.items():
                metric.labels(job, key).set(float(value))

    model = manifest.get("model") or {}
    facts = {
        "run_id": summary["run_id"],
        "status": summary["status"],
        "provider": model.get("provider", ""),
        "model": model.get("name", ""),
    }
    gauge("info", "The last run; the value is always 1", facts).labels(job, *facts.values()).set(1)
    several("rows", "Rows by where they ended; outcome=in: rows read", "outcome", summary["rows"])
    several(
        "calls",
        "Calls for answers, every try; outcome=reused: requests answered from the ledger",
        "outcome",
        summary["calls"],
    )
    several("failed_calls", "Failed calls by kind", "kind", summary.get("failed_calls") or {})
    several("dead_letters", "Dead letters by kind", "kind", _by_kind(summary.get("dead_letters") or []))
    several("tokens", "Tokens by type, as far as providers told", "type", summary["tokens"])
    one("cost_usd", "US dollars, of the calls whose cost is known", summary["cost_usd"])
    one("calls_of_unknown_cost", "Calls whose cost nobody knows", summary.get("calls_of_unknown_cost"))
    budget = summary.get("budget") or {}
    one("budget_max_usd", "The budget, US dollars", budget.get("max_usd"))
    one("budget_left_usd", "What is left of the budget, US dollars", budget.get("left_usd"))
    one("duration_seconds", "How long the run took", summary.get("duration_s"))
    one("success", "1 if every row has its answer or its dead letter and the limits hold", summary["status"] == "done")
    ended_at = manifest.get("ended_at")
    one("ended_at_seconds", "When the run ended, Unix time", ended_at and datetime.fromisoformat(ended_at).timestamp())
    return generate_latest(registry)


def _by_kind(dead_letters: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in dead_letters:
        counts[entry["kind"]] = counts.get(entry["kind"], 0) + entry["rows"]
    return counts
