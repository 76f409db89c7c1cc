"""A DuckDB database in memory that ends with its `with` block. Loads no Arrow."""

from types import TracebackType
from typing import Any, Self

import duckdb


class DuckSession:
    """What asks DuckDB over Parquet files. Use it in a `with`; two threads are enough for what people wait for.

    Args:
        config: DuckDB's settings, beside the number of threads.
    """

    def __init__(self, **config: Any) -> None:
        self._database = duckdb.connect(":memory:", config={"threads": "2", **config})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
