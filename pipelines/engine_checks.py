"""What each engine needs before a job is handed to it, checked on the machine that launches.

Each check gives its complaints, every one a clause that says what is missing and what to do; nothing is started, and
nothing but files, PATH and ports of this machine is looked at. (Beam's own check of Dataflow's options also asks for
the buckets' retention policy.)
"""

import os
import shutil
import socket
import warnings
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import orjson
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import create_runner

from transforms.providers import make_provider
from transforms.records.errors import ConfigError
from transforms.records.settings import Job
from transforms.storage.objects import is_remote

#: Flink "addresses" that mean a cluster inside the job server.
EMBEDDED_FLINK = frozenset({"[local]", "[auto]"})
_ENVIRONMENTS = ("DOCKER", "EXTERNAL", "LOOPBACK", "PROCESS")
_CONNECT_S = 2.0


def check_engine(engine: str, options: PipelineOptions) -> list[str]:
    """Return what is missing for a runner (its short name, in lower case); empty: nothing."""
    checks = {
        "flinkrunner": (_check_flink, check_environment),
        "prismrunner": (_check_prism, check_environment),
        "portablerunner": (_check_portable, check_environment),
        "dataflowrunner": (_check_dataflow,),
    }
    return [problem for check in checks.get(engine, ()) for problem in check(options)] + _check_setup_file(options)


def check_places(job: Job, options: PipelineOptions, *, waits: bool = True) -> list[str]:
    """Check that an engine's workers can get at what the job names; return what they perhaps can't, a clause each.

    Args:
        job: with absolute paths.
        options: as `beam_options` gives them.
        waits: the launcher will wait for the pipeline's end, and close the run.

    Raises:
        ConfigError: there will be no end to wait for; or Dataflow's workers, which share no disk and no environment with this machine, certainly can't.
    """
    engine = str(options.view_as(StandardOptions).runner).rsplit(".", 1)[-1].lower()
    if engine == "dataflowrunner":
        if waits and options.view_as(GoogleCloudOptions).template_location:
            raise ConfigError(
                "--template_location: a template is no run, so there is nothing to wait for; leave it out, or launch the "
                "template with pipelines/dataflow/main.py"
            )
        return _check_dataflow_places(job, options)
    address = _engine_address(engine, options)
    if not address or is_this_machine(address):
        return []
    return [f"{clause}; the workers of {address} must share that disk" for clause in _unseen(job, cure=False)]


def _unseen(job: Job, *, cure: bool = True) -> list[str]:
    """Return a clause for each place on a disk of this machine."""
    paths = job.input.path if isinstance(job.input.path, list) else [job.input.path or ""]
    local = [path for path in paths if path and not is_remote(path)]
    found = []
    if not is_remote(job.output):
        words = f"output: {job.output} is on this machine"
        found.append(words + (", which the workers can't see: name a folder at gs://" if cure else ""))
    if local:
        words = f"input.path: {local[0]} is on this machine"
        found.append(words + (", which the workers can't see: put it in a bucket, or read BigQuery" if cure else ""))
    return found


def _check_dataflow_places(job: Job, options: PipelineOptions) -> list[str]:
    problems = _unseen(job)
    variable = make_provider(job.model, None).key_env
    # Only an image of one's own can set a variable there.
    has_image = bool(options.view_as(WorkerOptions).sdk_container_image)
    if variable is not None and not has_image:
        problems.append(
            f"its workers don't have the variable {variable}: put the key into Secret Manager, and name it in model.api_key_secret"
        )
    if problems:
        raise ConfigError(f"--runner=DataflowRunner: {'; '.join(problems)}")
    if variable is None:
        return []
    return [f"the workers' image must set {variable}; model.api_key_secret keeps the key out of images"]


def _engine_address(engine: str, options: PipelineOptions) -> str:
    """Return the address of an engine that may be on other machines; "" where it is here for sure."""
    endpoint = options.view_as(PortableOptions).job_endpoint or ""
    if engine == "flinkrunner":
        master = str(options.view_as(FlinkRunnerOptions).flink_master)
        return endpoint if master in EMBEDDED_FLINK else master
    return endpoint if engine in ("prismrunner", "portablerunner") and endpoint != "embed" else ""


def is_this_machine(address: str) -> bool:
    """Say whether HOST:PORT, with or without a scheme, is of this machine."""
    host = urlsplit(address if "//" in address else f"//{address}").hostname
    return host in ("localhost", "127.0.0.1", "::1")


def _check_flink(options: PipelineOptions) -> list[str]:
    flink, server = options.view_as(FlinkRunnerOptions), options.view_as(JobServerOptions)
    problems = []
    has_server = options.view_as(PortableOptions).job_endpoint is not None
    java = server.job_server_java_launcher
    if not has_server and not flink.flink_submit_uber_jar and shutil.which(java) is None:
        problems.append(f"there is no {java} on PATH, which Beam's job server needs: install Java 17")
    jar = flink.flink_job_server_jar
    if jar and not has_server and not urlsplit(jar).scheme and not os.access(jar, os.R_OK):
        problems.append(
            f"--flink_job_server_jar={jar} can't be read: correct the path, or leave it out to have it fetched"
        )
    return problems


def _check_prism(options: PipelineOptions) -> list[str]:
    place = options.view_as(PrismRunnerOptions).prism_location
    if not place or urlsplit(place).scheme or os.access(place, os.R_OK):
        return []
    return [f"--prism_location={place} can't be read: correct the path, or leave it out to have Prism fetched"]


def _check_portable(options: PipelineOptions) -> list[str]:
    if options.view_as(PortableOptions).job_endpoint:
        return []
    return ["--job_endpoint=HOST:PORT is missing, the job server to submit to"]


def check_environment(options: PipelineOptions) -> list[str]:
    """Return what is missing of the place where workers run the job's Python."""
    portable = options.view_as(PortableOptions)
    asked = portable.environment_type
    if asked is None:
        return []
    if asked.upper() not in _ENVIRONMENTS:
        return [f"--environment_type={asked} is none of {', '.join(_ENVIRONMENTS)}"]
    check = {"PROCESS": _check_process, "EXTERNAL": _check_pool, "DOCKER": _check_image}.get(asked.upper())
    return [] if check is None else check(portable)


def _check_process(portable: PortableOptions) -> list[str]:
    command = portable.lookup_environment_option("process_command")
    if portable.environment_config:
        try:
            command = orjson.loads(portable.environment_config)["command"]
        except (ValueError, KeyError, TypeError):
            return ['--environment_config must be {"command": "/path/of/rowbeam-worker"} for PROCESS']
    if command:
        return []
    return [
        "no rowbeam-worker lies beside this Python: name one that workers find, --environment_option=process_command=PATH"
    ]


def _check_pool(portable: PortableOptions) -> list[str]:
    address = portable.environment_config or portable.lookup_environment_option("external_service_address")
    if not address:
        return ["--environment_config=HOST:PORT is missing, the worker pool of EXTERNAL"]
    # An address of another machine is for the engine's workers to reach, not for this one.
    if is_this_machine(address) and not _listens(address):
        port = address.rpartition(":")[2]
        start = f"python -m apache_beam.runners.worker.worker_pool_main --service_port={port}"
        return [f"no worker pool listens at {address}: start one with {start}"]
    return []


def _listens(address: str) -> bool:
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _CONNECT_S):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _check_image(portable: PortableOptions) -> list[str]:
    named = portable.environment_config or portable.lookup_environment_option("docker_container_image")
    if named or portable.view_as(WorkerOptions).sdk_container_image or portable.view_as(SetupOptions).setup_file:
        return []
    return [
        "Beam's own image lacks Rowbeam: name one that has it, --sdk_container_image=IMAGE, or --setup_file=./setup.py"
    ]


def _check_dataflow(options: PipelineOptions) -> list[str]:
    cloud, setup = options.view_as(GoogleCloudOptions), options.view_as(SetupOptions)
    problems = [f"--{name} is missing" for name in ("project", "region") if not getattr(cloud, name)]
    for name in ("temp_location", "staging_location"):
        place = getattr(cloud, name)
        if place and not place.startswith("gs://"):
            problems.append(f"--{name}={place} must be a folder at gs://")
    if not cloud.temp_location:
        problems.append("--temp_location=gs://BUCKET/tmp is missing")
    if not (setup.setup_file or setup.extra_packages or options.view_as(WorkerOptions).sdk_container_image):
        problems.append("its workers lack Rowbeam: --setup_file=./setup.py or --sdk_container_image=IMAGE")
    if not has_dataflow():
        problems.append("this Python lacks Google's client: pip install 'rowbeam[gcp]'")
    return problems or _check_dataflow_words(options)


def has_dataflow() -> bool:
    """Say whether Beam can launch Dataflow jobs from this Python."""
    try:
        return find_spec("google.cloud.dataflow") is not None
    except ModuleNotFoundError:
        return False


def _check_dataflow_words(options: PipelineOptions) -> list[str]:
    """Return what Beam will refuse when the pipeline is made, which is when the run has begun."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = PipelineOptionsValidator(options, create_runner("DataflowRunner")).validate()
    return [" ".join(str(problem).split()).rstrip(".") for problem in found]


def _check_setup_file(options: PipelineOptions) -> list[str]:
    file = options.view_as(SetupOptions).setup_file
    if not file:
        return []
    if Path(file).name != "setup.py":
        return [f"--setup_file={file} must be a file named setup.py"]
    return [] if Path(file).is_file() else [f"--setup_file={file} does not exist here: launch from the folder it is in"]
