"""CallModel's own DoFn driven by hand over one group, as a runner does with a bundle and again with its retry."""

from collections.abc import Iterator
from typing import Any

from apache_beam.utils.windowed_value import WindowedValue

from pipelines.job import load_job
from pipelines.prepare import PreparedJob, prepare
from transforms.call_model import _CallGroupDoFn
from transforms.records.request import ModelRequest, RequestGroup
from transforms.render_prompts import _RenderPromptDoFn
from transforms.rules.fingerprint import batch_key
from transforms.rules.identity import identify_group
from transforms.storage.inputs import read_unit, work_units


def ask_group(job: str, run_id: str) -> Iterator[Any]:
    """Take all rows of a job as one group of one bundle of that run; yield what the DoFn yields, as it does."""
    prepared = prepare(load_job(job), run_id)
    call = _CallGroupDoFn(prepared.call_settings)
    call.setup()
    try:
        call.start_bundle()
        yield from call.process(_group(prepared))
        for windowed in call.finish_bundle():
            yield windowed.value if isinstance(windowed, WindowedValue) else windowed
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
    rendered = [out.value[1] for row in rows for out in render.process(row) if hasattr(out, "tag")]
    requests = sorted((one for one in rendered if isinstance(one, ModelRequest)), key=lambda one: one.request_id)
    ids = [request.request_id for request in requests]
    return RequestGroup(batch_key(prepared.provider_name, prepared.request_model, ids), tuple(requests))
