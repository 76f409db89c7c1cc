"""WriteEnriched: enriched rows -> Parquet or JSON lines in the run's `enriched/` folder.

Beam's file sinks write to temporary files and rename them once, when all bundles are done: a retried bundle leaves
no second copy. Row order is not kept.
"""

from typing import Any, Literal

import apache_beam as beam
import orjson
import pyarrow as pa
from apache_beam import pvalue
from apache_beam.io.parquetio import WriteToParquet

from transforms.storage.tables import json_default


class WriteEnriched(beam.PTransform):
    """Write enriched rows.

    Args:
        folder: the run's enriched folder.
        schema: the Arrow schema of an enriched row.
        file_format: parquet (zstd) or jsonl.
    """

    def __init__(self, folder: str, schema: pa.Schema, file_format: Literal["parquet", "jsonl"]) -> None:
        super().__init__()
        self._folder = folder
        self._schema = schema
        self._format = file_format

    def expand(self, rows: pvalue.PCollection) -> Any:
        """Write as the job's sink says."""
        prefix = f"{self._folder}/part"
        if self._format == "parquet":
            return rows | "WriteParquet" >> WriteToParquet(
                prefix, self._schema, codec="zstd", file_name_suffix=".parquet"
            )
        return (
            rows
            | "EncodeJson" >> beam.Map(_encode)
            | "WriteJsonLines" >> beam.io.WriteToText(prefix, file_name_suffix=".jsonl", coder=beam.coders.BytesCoder())
        )


def _encode(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row, default=json_default, option=orjson.OPT_NON_STR_KEYS)
