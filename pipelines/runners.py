"""The user's choice of runner as Beam options, with what each engine needs filled in or asked for.

The local default is FnApiRunner. Beam's DirectRunner falls back to an older runner once GroupIntoBatches is in the
graph, which is several times slower and breaks self-checkpointing splittable DoFns, so `--runner=DirectRunner` (and
no runner at all) also runs on FnApiRunner; with --direct_num_workers, on so many processes.
"""

import gc
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import structlog
from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    SetupOptions,
    StandardOptions,
)
from apache_beam.runners.runner import create_runner
from apache_beam.transforms import core

from pipelines.engine_checks import EMBEDDED_FLINK, check_engine, is_this_machine
from pipelines.engine_logs import quiet_beam
from transforms.records.errors import ConfigError

_LOCAL = {"", "directrunner", "fnapirunner", "bundlebaseddirectrunner"}
_FN_API_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_PROCESSES = "pipelines.engine_local.FnApiRunner"
_WORKER = "rowbeam-worker"


class _CachedViews(PipelineOptions):
    """Options that build each view once: Beam asks for the same views a thousand times while it builds a graph.

    Views share their values, so a cached one never grows stale. Saves about 0.7 s of CPU a run.
    """

    def view_as(self, cls: type[PipelineOptions]) -> PipelineOptions:
        """Return the options as the class sees them."""
        views = self.__dict__.setdefault("_views", {})
        view = views.get(cls)
        if view is None:
            view = views[cls] = super().view_as(cls)
        return view

    def __getstate__(self) -> dict[str, Any]:
        """Leave the views out of pickles and copies."""
        return {name: value for name, value in self.__dict__.items() if name != "_views"}


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Return Beam's options for the arguments after `--`: the local runner made FnApiRunner, the rest filled in.

    Unless logs are at debug, Beam's tracebacks of failed bundles are no longer logged.

    Raises:
        ConfigError: Beam has no runner of that name, or what it needs is missing; in one line, before anything starts.
    """
    quiet_beam()
    options = _CachedViews(list(arguments))
    standard = options.view_as(StandardOptions)
    asked = standard.runner or ""
    engine = asked.rsplit(".", 1)[-1].lower()
    workers = options.view_as(DirectOptions).direct_num_workers
    if engine in _LOCAL and workers < 0:
        raise ConfigError(f"--direct_num_workers={workers}: write how many processes, or 0 for one for each core")
    if engine in _LOCAL:
        standard.runner = _FN_API_RUNNER if workers == 1 else _LOCAL_PROCESSES
        structlog.get_logger("rowbeam").info("runner_chosen", asked=asked or None, runner="FnApiRunner")
        return options
    _check_runner(asked)
    problems = _fill_in(engine, options) or check_engine(engine, options)
    if problems:
        raise ConfigError(f"--runner={asked}: {'; '.join(problems)}")
    return options


def _fill_in(engine: str, options: PipelineOptions) -> list[str]:
    """Set what the user left out and this machine can tell; return what only the user can say."""
    setup, portable = options.view_as(SetupOptions), options.view_as(PortableOptions)
    if setup.setup_file == "setup.py":
        # Beam goes to the file's folder by the path's first part, which must be there.
        setup.setup_file = "./setup.py"
    problems = []
    if engine == "prismrunner" and not options.view_as(PrismRunnerOptions).prism_location:
        options.view_as(PrismRunnerOptions).prism_location = shutil.which("prism")
    elif engine in ("flinkrunner", "portablerunner") and portable.environment_type is None:
        problems = _choose_environment(_cluster(engine, options), portable)
    if (portable.environment_type or "").upper() == "PROCESS" and not portable.environment_config:
        _name_worker(portable)
    return problems


def _cluster(engine: str, options: PipelineOptions) -> str:
    """Return the address that tells where the workers are."""
    if engine == "flinkrunner":
        return str(options.view_as(FlinkRunnerOptions).flink_master)
    return options.view_as(PortableOptions).job_endpoint or ""


def _choose_environment(cluster: str, portable: PortableOptions) -> list[str]:
    """Run the job's Python in this process for an embedded cluster, in processes of their own for one on this machine."""
    if cluster in ("", "embed", *EMBEDDED_FLINK):
        return []
    if not is_this_machine(cluster):
        said = (
            f"say how the workers of {cluster} run the job's Python: --environment_type=DOCKER with "
            f"--sdk_container_image=IMAGE, PROCESS with --environment_option=process_command=PATH of their {_WORKER}, "
            f"or EXTERNAL with --environment_config=HOST:PORT of a worker pool"
        )
        return [said]
    portable.environment_type = "PROCESS"
    return []


def _name_worker(portable: PortableOptions) -> None:
    worker = Path(sys.executable).with_name(_WORKER)
    if not portable.lookup_environment_option("process_command") and worker.is_file():
        portable.add_environment_option(f"process_command={worker}")


@contextmanager
def remembered_signatures() -> Iterator[None]:
    """Look at each method's signature once while a pipeline is built and run in this process.

    Beam inspects all methods of a DoFn seven times each, 19,000 inspections for this path's graph and nearly half of a
    small run's time between import and first call. What it asks depends on the function alone. A Beam without the
    function that is wrapped here runs as it is.
    """
    inspect = getattr(core, "get_function_args_defaults", None)
    if inspect is None:
        yield
        return
    core.get_function_args_defaults = _remembering(inspect)
    try:
        yield
    finally:
        core.get_function_args_defaults = inspect


def _remembering(inspect: Callable[[Any], tuple[list[str], list[Any]]]) -> Callable[[Any], tuple[list[str], list[Any]]]:
    known: dict[Any, tuple[list[str], list[Any]]] = {}

    def remembered(function: Any) -> tuple[list[str], list[Any]]:
        if not isinstance(function, MethodType):
            return inspect(function)
        found = known.get(function.__func__)
        if found is None:
            found = known[function.__func__] = inspect(function)
        return list(found[0]), list(found[1])

    return remembered


@contextmanager
def calm_interpreter() -> Iterator[None]:
    """Keep the interpreter from stalling the calls' event loop while the pipeline runs in this process.

    Measured with 500 calls of 0.5 s in flight: full collections over the graph's million objects and the default
    5 ms between thread switches cost an eighth of the throughput together, little each alone.
    """
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


def _check_runner(asked: str) -> None:
    try:
        create_runner(asked)
    except Exception as error:  # whatever a name that is no runner brings about
        raise ConfigError(
            f"--runner={asked}: {' '.join(str(error).split()).rstrip('.')}; correct the name, or leave it out to run here"
        ) from error


def is_one_process(options: PipelineOptions) -> bool:
    """Say whether all of a run's calls are made in the process that launches it."""
    return options.view_as(StandardOptions).runner == _FN_API_RUNNER


def runner_name(options: PipelineOptions) -> str:
    """Return the runner's short name for the manifest."""
    return str(options.view_as(StandardOptions).runner).rsplit(".", 1)[-1]
