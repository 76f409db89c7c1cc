"""Workers on other machines must get at what the job names: said before the launch, in one line."""

from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.engine_checks import check_places
from transforms.records.errors import ConfigError
from transforms.records.settings import Job

SECRET = "projects/p/secrets/openai/versions/1"
BUCKET: dict[str, Any] = {"input": {"path": "gs://b/rows/*.csv"}, "output": "gs://b/out"}
DATAFLOW = "--runner=DataflowRunner"
IMAGE = "--sdk_container_image=repo/image"


def job(model: dict[str, Any] | None = None, **changes: Any) -> Job:
    """Return a job on this machine's disk, and what changes."""
    values: dict[str, Any] = {
        "name": "j",
        "input": {"path": "/data/rows.csv"},
        "output": "/data/out",
        "prompt": {"template": "t"},
        "answer": {"field": "f"},
        "model": {"provider": "openai", "name": "m", **(model or {})},
    }
    return Job(**{**values, **changes})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param(
            job({"api_key_secret": SECRET}, input=BUCKET["input"]),
            "output: /data/out is on this machine, which the workers can't see: name a folder at gs://",
            id="output",
        ),
        pytest.param(
            job({"api_key_secret": SECRET}, output=BUCKET["output"]),
            "input.path: /data/rows.csv is on this machine, which the workers can't see: put it in a bucket, or read "
            "BigQuery",
            id="input",
        ),
        pytest.param(
            job({"api_key_secret": SECRET}, input={"path": ["gs://b/a.csv", "/data/b.csv"]}, output="gs://b/out"),
            "input.path: /data/b.csv is on this machine, which the workers can't see: put it in a bucket, or read "
            "BigQuery",
            id="one of several inputs",
        ),
        pytest.param(
            job(**BUCKET),
            "its workers don't have the variable OPENAI_API_KEY: put the key into Secret Manager, and name it in "
            "model.api_key_secret",
            id="key",
        ),
    ],
)
def test_what_dataflow_s_workers_can_not_reach_is_refused(asked: Job, said: str) -> None:
    """One sentence per place, each with its cure."""
    with pytest.raises(ConfigError) as caught:
        check_places(asked, PipelineOptions([DATAFLOW]))
    assert str(caught.value) == f"--runner=DataflowRunner: {said}"


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(job({"api_key_secret": SECRET}, **BUCKET), id="bucket"),
        pytest.param(
            job({"api_key_secret": SECRET}, input={"bigquery": {"table": "p.d.t"}}, output="gs://b/out"), id="BigQuery"
        ),
        pytest.param(job({"provider": "openai_compatible", "base_url": "http://h/v1"}, **BUCKET), id="no key at all"),
    ],
)
def test_what_they_can_reach_passes(asked: Job) -> None:
    """Without a word."""
    assert check_places(asked, PipelineOptions([DATAFLOW])) == []


def test_an_image_may_hold_the_variable() -> None:
    """Nobody here can look into it, so that is a warning."""
    said = "the workers' image must set OPENAI_API_KEY; model.api_key_secret keeps the key out of images"
    assert check_places(job(**BUCKET), PipelineOptions([DATAFLOW, IMAGE])) == [said]


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        pytest.param([], None, id="local"),
        pytest.param(["--runner=PrismRunner"], None, id="Prism"),
        pytest.param(["--runner=FlinkRunner"], None, id="Flink inside its job server"),
        pytest.param(["--runner=FlinkRunner", "--flink_master=localhost:8081"], None, id="Flink here"),
        pytest.param(
            ["--runner=FlinkRunner", "--flink_master=http://10.0.0.7:8081"], "http://10.0.0.7:8081", id="there"
        ),
        pytest.param(["--runner=PortableRunner", "--job_endpoint=jobs:8099"], "jobs:8099", id="a job server there"),
        pytest.param(["--runner=PrismRunner", "--job_endpoint=prism:8073"], "prism:8073", id="Prism there"),
    ],
)
def test_a_disk_that_other_machines_may_share_is_a_warning(arguments: list[str], address: str | None) -> None:
    """Only where the engine is not on this machine, and only of paths on a disk."""
    options = PipelineOptions(arguments)
    shared = "" if address is None else f"the workers of {address} must share that disk"
    expected = [
        f"{words} is on this machine; {shared}" for words in ("output: /data/out", "input.path: /data/rows.csv")
    ]
    assert check_places(job(), options) == ([] if address is None else expected)
    assert check_places(job(**BUCKET), options) == []


def test_a_template_is_not_waited_for() -> None:
    """A run that waits would find no counts; the template's launcher does not wait."""
    options = PipelineOptions([DATAFLOW, "--template_location=gs://b/templates/one"])
    asked = job({"api_key_secret": SECRET}, **BUCKET)
    with pytest.raises(ConfigError, match=r"^--template_location: a template is no run"):
        check_places(asked, options)
    assert check_places(asked, options, waits=False) == []
