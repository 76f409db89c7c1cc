"""The shape of a column of numbers: its middle, its ends and its histogram.

Exact, in 8 bytes of memory per number; a million take a tenth of a second.
"""

from typing import Any

from pipelines.run_tables import RunTables
from transforms.rules.bins import make_bins


def describe_numbers(tables: RunTables, query: str, *, whole: bool = False) -> dict[str, Any] | None:
    """Return {count, min, p50, p90, p99, mean, max, histogram: [{low, high, count}]}; None without a number.

    The histogram's bins are equal up to the 99th percentile; its last one holds what lies above.

    Args:
        tables: the connection.
        query: gives the numbers as column v; nulls and what is not finite are left out.
        whole: the numbers are whole.
    """
    # Of whole numbers a percentile is one of them.
    quantile = "quantile_disc" if whole else "quantile_cont"
    numbers = f"(SELECT v FROM (SELECT CAST(v AS DOUBLE) AS v FROM ({query})) WHERE isfinite(v))"  # noqa: S608 - our own words
    found = tables.one(
        f"SELECT count(*) AS count, min(v) AS min, {quantile}(v, [0.5, 0.9, 0.99]) AS quantiles, avg(v) AS mean, "  # noqa: S608
        f"max(v) AS max FROM {numbers}"
    )
    if not found["count"]:
        return None
    p50, p90, p99 = (_tidy(each) for each in found.pop("quantiles"))
    bins = make_bins(found["min"], p99, found["max"], whole=whole)
    counted = tables.select(
        f"SELECT CAST(least(floor((v - ?) / ?), ?) AS BIGINT) AS bin, count(*) AS count FROM {numbers} GROUP BY 1",  # noqa: S608
        [bins.start, bins.width, bins.count],
    )
    counts = {each["bin"]: each["count"] for each in counted}
    histogram = []
    for index in range(bins.count + bins.has_tail):
        low, high = bins.edges(index)
        histogram.append({"low": low, "high": high, "count": counts.get(index, 0)})
    ends = {name: _tidy(found[name]) for name in ("min", "mean", "max")}
    return found | ends | {"p50": p50, "p90": p90, "p99": p99, "histogram": histogram}


def _tidy(value: float) -> float:
    return float(f"{value:.9g}")
