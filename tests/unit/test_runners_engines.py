"""What engines need is filled in or asked for, in one line, before anything starts."""

import socket
import stat
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    SetupOptions,
)

from pipelines import engine_checks
from pipelines.engine_checks import check_engine, is_this_machine
from pipelines.runners import beam_options, runner_name
from transforms.records.errors import ConfigError

CLOUD = ["--project=p", "--region=europe-west1", "--temp_location=gs://b/tmp", "--sdk_container_image=repo/image"]
REMOTE = "--flink_master=flink.example.com:8081"
WORKER = "--environment_option=process_command=/opt/rowbeam-worker"


@pytest.fixture
def empty_path(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, current and the only one on PATH, without any program."""
    monkeypatch.setenv("PATH", str(workdir))
    return workdir


def _program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--runner=FlinkRunner"], "there is no java on PATH", id="no java"),
        pytest.param(
            ["--runner=FlinkRunner", "--job_endpoint=localhost:1", "--flink_job_server_jar=no.jar", REMOTE],
            "say how the workers of flink.example.com:8081 run",
            id="a cluster elsewhere, and no word on its workers",
        ),
        pytest.param(
            ["--runner=FlinkRunner", "--flink_job_server_jar=no.jar"],
            "--flink_job_server_jar=no.jar can't be read",
            id="no jar",
        ),
        pytest.param(
            ["--runner=PrismRunner", "--prism_location=./none"], "--prism_location=./none can't be", id="no prism"
        ),
        pytest.param(["--runner=PortableRunner"], "--job_endpoint=HOST:PORT is missing", id="no job server"),
        pytest.param(
            ["--runner=PrismRunner", "--environment_type=CLOUD"],
            "--environment_type=CLOUD is none of",
            id="no such place",
        ),
        pytest.param(
            ["--runner=PrismRunner", "--environment_type=EXTERNAL"],
            "--environment_config=HOST:PORT is missing",
            id="which pool",
        ),
        pytest.param(
            ["--runner=PrismRunner", "--environment_type=PROCESS", "--environment_config=/opt/worker"],
            "--environment_config must be",
            id="not the JSON that Beam wants",
        ),
        pytest.param(
            ["--runner=PrismRunner", "--environment_type=DOCKER"], "Beam's own image lacks Rowbeam", id="no image"
        ),
        pytest.param(
            ["--runner=PrismRunner", "--setup_file=x/setup.py"], "--setup_file=x/setup.py does not exist", id="no setup"
        ),
        pytest.param(["--runner=PrismRunner", "--setup_file=x.py"], "must be a file named setup.py", id="not setup.py"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments: list[str], said: str, empty_path: Path) -> None:
    """The sentence names the runner, and what to do about each gap."""
    assert empty_path.is_dir()
    with pytest.raises(ConfigError) as caught:
        beam_options(arguments)
    assert str(caught.value).startswith(f"{arguments[0]}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dropped", "said"),
    [
        pytest.param("--project", ["--project is missing"], id="project"),
        pytest.param("--region", ["--region is missing"], id="region"),
        pytest.param("--temp_location", ["--temp_location=gs://BUCKET/tmp is missing"], id="temp location"),
        pytest.param("--sdk_container_image", ["its workers lack Rowbeam"], id="neither image nor setup file"),
        pytest.param("nothing", [], id="all there"),
    ],
)
def test_dataflow_is_told_where_and_with_what(dropped: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the options without which a launch fails late is missed at once."""
    monkeypatch.setattr(engine_checks, "has_dataflow", lambda: True)
    monkeypatch.setattr(engine_checks, "_check_dataflow_words", lambda _options: [])
    options = PipelineOptions([argument for argument in CLOUD if not argument.startswith(dropped)])
    found = check_engine("dataflowrunner", options)
    assert [words.startswith(start) for words, start in zip(found, said, strict=True)] == [True] * len(said)


def test_dataflow_needs_googles_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam would say so when the run has begun."""
    monkeypatch.setattr(engine_checks, "has_dataflow", lambda: False)
    assert check_engine("dataflowrunner", PipelineOptions(CLOUD)) == [
        "this Python lacks Google's client: pip install 'rowbeam[gcp]'"
    ]


def test_what_beam_refuses_late_is_said_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Beam's words, on one line."""
    monkeypatch.setattr(engine_checks, "has_dataflow", lambda: True)
    monkeypatch.setattr("apache_beam.options.pipeline_options.GoogleCloudOptions._handle_temp_and_staging_locations",
                        lambda *_: [])  # fmt: skip
    (said,) = check_engine("dataflowrunner", PipelineOptions(["--project=My Project", *CLOUD[1:]]))
    assert said.startswith("Invalid Project ID (My Project)")


def test_a_worker_pool_on_this_machine_must_be_there() -> None:
    """A pool that listens is taken; one that does not is missed, with the command that starts it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        options = PipelineOptions(["--environment_type=EXTERNAL", f"--environment_config={address}"])
        assert check_engine("prismrunner", options) == []
    (said,) = check_engine("prismrunner", options)
    assert said.startswith(f"no worker pool listens at {address}: start one with python -m ")


@pytest.mark.parametrize(
    ("address", "expected"),
    [("localhost:8081", True), ("http://127.0.0.1:8081", True), ("[local]", False), ("10.0.0.7:8081", False)],
)
def test_addresses_of_this_machine_are_known(address: str, expected: bool) -> None:
    """With or without a scheme."""
    assert (not address.startswith("[") and is_this_machine(address)) is expected


def test_a_flink_cluster_on_this_machine_gets_workers_in_processes(
    empty_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run the program that lies beside this Python; what the user said stays."""
    _program(empty_path / "java")
    _program(empty_path / "rowbeam-worker")
    monkeypatch.setattr(sys, "executable", str(empty_path / "python"))
    here = ["--runner=FlinkRunner", "--flink_master=127.0.0.1:8081"]
    portable = beam_options(here).view_as(PortableOptions)
    assert portable.environment_type == "PROCESS"
    assert portable.lookup_environment_option("process_command") == str(empty_path / "rowbeam-worker")
    portable = beam_options([*here, "--environment_type=PROCESS", WORKER]).view_as(PortableOptions)
    assert portable.environment_options == ["process_command=/opt/rowbeam-worker"]
    assert beam_options([*here, "--environment_type=LOOPBACK"]).view_as(PortableOptions).environment_type == "LOOPBACK"


def test_workers_in_processes_need_their_program(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none lies beside this Python, the user has to name one."""
    monkeypatch.setattr(sys, "executable", str(empty_path / "python"))
    with pytest.raises(ConfigError, match="no rowbeam-worker lies beside this Python"):
        beam_options(["--runner=PrismRunner", "--environment_type=PROCESS"])


def test_prism_on_path_is_used_and_a_setup_file_gets_its_folder(empty_path: Path) -> None:
    """Beam would fetch Prism although it is here, and fails on a setup file without a folder."""
    prism = _program(empty_path / "prism")
    (empty_path / "setup.py").write_text("", encoding="utf-8")
    options = beam_options(["--runner=PrismRunner", "--setup_file=setup.py"])
    assert options.view_as(PrismRunnerOptions).prism_location == str(prism)
    assert options.view_as(SetupOptions).setup_file == "./setup.py"


@pytest.mark.parametrize(("workers", "module"), [(1, "apache_beam"), (2, "pipelines"), (0, "pipelines")])
def test_several_local_workers_have_a_runner_of_ours(workers: int, module: str) -> None:
    """Beam's own loses what splittable DoFns defer; both go by one name."""
    options = beam_options([f"--direct_num_workers={workers}"])
    assert options.view_as(DirectOptions).direct_num_workers == workers
    assert str(options.get_all_options()["runner"]).startswith(module)
    assert runner_name(options) == "FnApiRunner"
