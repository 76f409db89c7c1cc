"""The job as Dataflow is handed it, translated by Beam's own runner without a network: a template, never submitted.

What Dataflow refuses late is looked at here: https://cloud.google.com/dataflow/quotas (a job's graph: 10 MB).
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from pipelines import left_runs
from pipelines.dataflow.main import main
from pipelines.runners import beam_options
from tests.guards.test_job_graph import SIDE_INPUTS
from tests.guards.whole_path import PATHS, build_path
from tests.unit.gcs_bucket import serving_bucket

apiclient = pytest.importorskip(
    "apache_beam.runners.dataflow.internal.apiclient", reason="Beam's extra gcp is not installed", exc_type=ImportError
)

_MOST_BYTES = 10 << 20
_KEY = "sk-canary-5f1e0c"
_STAGED_GRAPH = "pipeline.pb"
_OPTIONS = [
    "--runner=DataflowRunner",
    "--project=rowbeam-test",
    "--region=europe-west1",
    "--temp_location=gs://bucket/tmp",
    "--staging_location=gs://bucket/staging",
    "--sdk_container_image=repo/rowbeam:1",
    "--machine_type=n2-standard-4",
    "--max_num_workers=7",
    "--no_auth",
]
_JOB = {
    "name": "reviews",
    "input": {"path": "rows.csv", "key": ["id"]},
    "output": "out",
    "prompt": {"template": "Rate: {{ row.text }}"},
    "answer": {"field": "label"},
    "model": {
        "provider": "openai",
        "name": "gpt-4o-mini",
        "api_key_secret": "projects/p/secrets/openai/versions/latest",
    },
}


class Launch(NamedTuple):
    """What would be sent: the job's JSON, and the files beside it by name."""

    job: dict[str, Any]
    job_bytes: int
    staged: dict[str, bytes]
    pipeline: Any


def _stay_here(patch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Keep Beam's client off the network; returns what it stages, by name, as it comes."""
    from apache_beam.internal.gcp import auth

    staged: dict[str, bytes] = {}

    def keep(_self: Any, place: str, name: str, stream: Any, *_rest: Any, **_more: Any) -> None:
        data = stream.read()
        staged[name] = data
        if not place.startswith("gs://"):
            (Path(place) / name).write_bytes(data)

    patch.setenv("OPENAI_API_KEY", _KEY)
    patch.setattr(apiclient.DataflowApplicationClient, "stage_file", keep)
    # Nobody is looked for who could sign in, and no bucket for its retention policy.
    patch.setattr(auth._Credentials, "_credentials_init", True)
    patch.setattr(auth._Credentials, "_credentials", None)
    patch.setattr("apache_beam.io.gcp.gcsio.GcsIO.is_soft_delete_enabled", lambda *_: False)
    return staged


@pytest.fixture(scope="module", params=PATHS)
def launch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Translate the whole path; files for the bucket stay here."""
    from apache_beam.portability.api import beam_runner_api_pb2

    folder = tmp_path_factory.mktemp("dataflow")
    with pytest.MonkeyPatch.context() as patch:
        staged = _stay_here(patch)
        options = beam_options([*_OPTIONS, f"--template_location={folder}/job.json"])
        pipeline = build_path(request.param, folder / "out", options)
        # As a Flex Template's launcher needs it: nothing is waited for.
        pipeline.run().wait_until_finish()
    text = (folder / "job.json").read_bytes()
    graph = beam_runner_api_pb2.Pipeline.FromString(staged[_STAGED_GRAPH])
    return Launch(json.loads(text), len(text), staged, graph)


def test_the_job_is_within_dataflow_s_limit(launch: Launch) -> None:
    """With the graph, which is staged beside it, it is far below what Dataflow takes."""
    assert launch.job_bytes + len(launch.staged[_STAGED_GRAPH]) < _MOST_BYTES / 4


def test_it_is_a_batch_job_with_the_workers_asked_for(launch: Launch) -> None:
    """A step that Beam takes for unbounded would make it a streaming job, where file sinks never close."""
    environment = launch.job["environment"]
    (pool,) = environment["workerPools"]
    images = [image["containerImage"] for image in pool["sdkHarnessContainerImages"]]
    assert launch.job["type"] == "JOB_TYPE_BATCH"
    assert (pool["machineType"], pool["autoscalingSettings"]["maxNumWorkers"]) == ("n2-standard-4", 7)
    assert images == ["repo/rowbeam:1"]
    assert "/bucket/tmp/" in environment["tempStoragePrefix"]


def test_steps_keep_their_names(launch: Launch) -> None:
    """Beam's runner leaves our labels as they are, and puts none with a passing name beside them."""
    names = {node.unique_name for node in launch.pipeline.components.transforms.values()}
    assert {"EnrichRows/AskModel/CallModel", "EnrichRows/CloseRun"} <= names
    ours = [name for name in names if name.startswith("EnrichRows/") and re.search(r"0x[0-9a-f]{4,}", name)]
    assert not ours


def test_side_inputs_are_those_that_are_bounded(launch: Launch) -> None:
    """What the runner rewrites adds none of its own."""
    from apache_beam.portability.api import beam_runner_api_pb2

    found = [
        node.unique_name
        for node in launch.pipeline.components.transforms.values()
        if node.spec.urn == "beam:transform:pardo:v1"
        and beam_runner_api_pb2.ParDoPayload.FromString(node.spec.payload).side_inputs
    ]
    assert found
    assert not [name for name in found if not any(f"/{stage}" in name for stage in SIDE_INPUTS)]


def test_no_key_is_in_what_is_handed_over(launch: Launch) -> None:
    """Neither in the job's options, which anybody who may see the job reads, nor in a stage."""
    assert _KEY not in json.dumps(launch.job)
    assert not [name for name, data in launch.staged.items() if _KEY.encode() in data]


def test_a_flex_template_s_launcher_hands_the_job_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Google's launcher calls it: the template is written, the run is begun, and nobody holds the output."""
    staged = _stay_here(monkeypatch)
    with serving_bucket() as (bucket, address):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        bucket.store("bucket", "job.yaml", orjson.dumps(_JOB))
        bucket.store("bucket", "rows.csv", b"id,text\nA,good\n")
        template = [f"--template_location={tmp_path}/job_object", "--job_name=nightly", "--yes=false"]
        assert main(["--job=gs://bucket/job.yaml", *_OPTIONS, *template]) == 0
        assert "is handed over; when its pipeline is done: python -m pipelines.left_runs" in capsys.readouterr().err
        assert json.loads((tmp_path / "job_object").read_bytes())["name"] == "nightly"
        assert _STAGED_GRAPH in staged
        (manifest,) = [name for name in bucket.names() if name.endswith("manifest.json")]
        assert (orjson.loads(bucket.data(manifest))["status"], "out/ledger/lease.json" in bucket.names()) == (
            "running",
            False,
        )
        assert left_runs.main(["--job=gs://bucket/job.yaml"]) == 2
        assert "has left no counts: its pipeline is at work still, or failed" in capsys.readouterr().err
