"""CallModel's own DoFn driven by hand over one group, as a runner does with a bundle and again with its retry."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar

from pipelines.job import load_job
from pipelines.prepare import PreparedJob, prepare
from transforms.call_model import _CallGroupDoFn
from transforms.records.answer import ModelAnswer
from transforms.records.request import RequestGroup
from transforms.render_prompts import _RenderPromptDoFn
from transforms.rules.fingerprint import batch_key
from transforms.rules.identity import identify_group
from transforms.storage.inputs import read_unit, work_units

_Record = TypeVar("_Record")


def ask_group(job: str, run_id: str) -> Iterator[ModelAnswer]:
    """Take all rows of a job as one group of one bundle of that run; yield its answers as the DoFn yields them."""
    prepared = prepare(load_job(job), run_id)
    call = _CallGroupDoFn(prepared.call_settings)
    call.setup()
    try:
        call.start_bundle()
        for out in chain(call.process(_group(prepared)), call.finish_bundle()):
            yield from _found(out, ModelAnswer)
    finally:
        call.teardown()


def _group(prepared: PreparedJob) -> RequestGroup:
    render = _RenderPromptDoFn(prepared.template, prepared.identity, [])
    render.setup()
    [unit] = work_units(prepared.files)
    rows = [
        row
        for raw in read_unit(unit, prepared.input, prepared.input_schema)
        for row in identify_group(raw.values["id"], [raw], has_key=True)
    ]
    keyed = sorted(dict(out for row in rows for out in render.process(row)).items())
    ids = [request_id for request_id, _ in keyed]
    key = batch_key(prepared.provider_name, prepared.request_model, ids)
    return RequestGroup(key, tuple(packed for _, packed in keyed))


def _found(out: Any, kind: type[_Record]) -> Iterator[_Record]:
    """Yield the record of that kind in an output, whatever key, window or tag it comes with."""
    while hasattr(out, "value"):
        out = out.value
    yield from (part for part in (out if isinstance(out, tuple) else (out,)) if isinstance(part, kind))
