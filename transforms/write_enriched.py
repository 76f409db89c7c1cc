"""WriteEnriched: enriched rows -> Parquet or JSON-lines parts in the run's `enriched/` folder.

Parts get their names when the run closes: a retried bundle leaves no second copy. Row order is not kept.
"""

from typing import Any, Literal

import apache_beam as beam
import pyarrow as pa
from apache_beam import pvalue

from transforms._sink import WritePartDoFn


class WriteEnriched(beam.PTransform):
    """Write enriched rows; gives (folder, path) of each part.

    Args:
        folder: the run's enriched folder.
        schema: the Arrow schema of an enriched row.
        file_format: parquet (zstd) or jsonl.
    """

    def __init__(self, folder: str, schema: pa.Schema, file_format: Literal["parquet", "jsonl"]) -> None:
        super().__init__()
        self._folder = folder
        self._schema = schema if file_format == "parquet" else None

    def expand(self, rows: pvalue.PCollection) -> Any:
        """Write each bundle's rows."""
        return rows | "WritePart" >> beam.ParDo(WritePartDoFn(self._folder, self._schema))
