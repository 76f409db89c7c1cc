"""Runs one stage through the local runner, and gives back exactly what came out of it."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline as BeamTestPipeline

from transforms.records.failure import FailureKind
from transforms.records.request import Lane, ModelRequest, Prompt, PromptHashes
from transforms.records.row import AskedRow, SourceRow

#: The local runner's workers are threads of this process, so a stage's output can be kept here.
_kept: defaultdict[str, list[Any]] = defaultdict(list)
_numbers = itertools.count()

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["positive", "negative"]}},
    "required": ["label"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class StageRun:
    """What a stage gave: its outputs by name, and its counters as "Stage/name"; distributions as (count, sum)."""

    outputs: dict[str, list[Any]]
    counters: dict[str, int]
    distributions: dict[str, tuple[int, int]]

    def __getitem__(self, name: str) -> list[Any]:
        return self.outputs[name]


def run_stage(build: Callable[[Any], Any]) -> StageRun:
    """Build on a pipeline's root and run; build returns a NamedTuple of PCollections, or one ("main")."""
    number = next(_numbers)
    with BeamTestPipeline(runner=FnApiRunner()) as pipeline:
        built = build(pipeline)
        fields = built._asdict() if hasattr(built, "_asdict") else {"main": built}
        for name, output in fields.items():
            if output is not None:
                output | f"Keep {name}" >> beam.Map(_keep, f"{number}/{name}")
    found = pipeline.result.metrics().query()
    return StageRun(
        {name: _kept.pop(f"{number}/{name}", []) for name in fields},
        {_name(metric): metric.committed for metric in found["counters"] if metric.committed},
        {_name(metric): (metric.committed.count, metric.committed.sum) for metric in found["distributions"]},
    )


def _keep(element: Any, key: str) -> None:
    _kept[key].append(element)


def _name(metric: Any) -> str:
    return f"{metric.key.metric.namespace}/{metric.key.metric.name}"


def source_row(row_id: str, line: int = 2, **values: Any) -> SourceRow:
    """Return a row; by default of one column, text."""
    return SourceRow(row_id, values or {"text": f"text of {row_id}"}, "rows.csv", line, "c" * 64)


def asked_row(row_id: str, line: int = 2, variables: str = "v" * 64, **values: Any) -> AskedRow:
    """Return a row that waits."""
    return AskedRow(source_row(row_id, line, **values), variables)


def make_request(name: str, **changes: Any) -> ModelRequest:
    """Return a request whose id is a hash-like name, with one row that waits for it."""
    values: dict[str, Any] = {
        "request_id": request_id(name),
        "prompt": Prompt(None, (("user", name),)),
        "shown_prompt": None,
        "hashes": PromptHashes("p" * 64, "t" * 64, "v" * 64, None),
        "lane": Lane.MAIN,
        "root_request_id": request_id(name),
        "riders": (asked_row(f"row-{name}"),),
    }
    return ModelRequest(**{**values, **changes})


def request_id(name: str) -> str:
    """Return a hexadecimal id, as real ones are."""
    return name.encode().hex().ljust(40, "0")


def tally(items: list[Any]) -> Counter[Any]:
    """Return how often each item is there: contents without order."""
    return Counter(items)


def kind_of(item: Any) -> FailureKind:
    """Return an item's kind."""
    kind: FailureKind = item.kind
    return kind
