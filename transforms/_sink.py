"""The part-writing DoFn that the Write* stages share. Imported by stages only.

Beam's own WriteToParquet fails a whole bundle on one value that Arrow can't take (lone surrogates, a Decimal with
too many digits); ours mends the value. It is also fused with the stage before it and adds no shuffle.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa

from transforms._stage import at_bundle_end
from transforms.storage.parts import PartWriter, new_part


class WritePartDoFn(beam.DoFn):
    """Write the dicts of a bundle to one part of `folder`; gives (folder, path) of the part when it is complete.

    With a schema, a column that a row lacks is null there: JSONL rows have the keys their lines had.
    """

    def __init__(self, folder: str, schema: pa.Schema | None) -> None:
        self._folder = folder
        self._schema = schema
        self._nulls = {} if schema is None else dict.fromkeys(schema.names)

    def start_bundle(self) -> None:
        self._writer: PartWriter | None = None
        self._path = ""

    def process(self, row: dict[str, Any]) -> None:
        if self._writer is None:
            self._path, self._writer = new_part(self._folder, self._schema)
        self._writer.append(row if len(row) >= len(self._nulls) else {**self._nulls, **row})

    def finish_bundle(self) -> Iterator[Any]:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            yield at_bundle_end((self._folder, self._path))

    def teardown(self) -> None:
        writer: PartWriter | None = getattr(self, "_writer", None)
        if writer is not None:
            writer.discard()
