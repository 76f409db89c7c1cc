"""The user's choice of runner as Beam options.

The local default is FnApiRunner. Beam's DirectRunner falls back to an older runner once GroupIntoBatches is in the
graph, which is several times slower and breaks self-checkpointing splittable DoFns, so `--runner=DirectRunner` (and
no runner at all) also runs on FnApiRunner.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import structlog
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner
from apache_beam.transforms import core

from transforms.records.errors import ConfigError

_LOCAL = {"", "directrunner", "fnapirunner", "bundlebaseddirectrunner"}
# They log a failed bundle, with its traceback, once for each stage it passed; the run's last sentence says it once.
_FAILURE_LOGGERS = (
    "apache_beam.runners.common",
    "apache_beam.runners.worker.sdk_worker",
    "apache_beam.runners.worker.data_plane",
)
_FN_API_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


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
    """Return Beam's options for the arguments after `--`, with the local runner made FnApiRunner.

    Unless logs are at debug, Beam's tracebacks of failed bundles are no longer logged.

    Raises:
        ConfigError: Beam has no runner of that name, or what it needs is not installed.
    """
    _quiet_failures()
    options = _CachedViews(list(arguments))
    standard = options.view_as(StandardOptions)
    asked = standard.runner or ""
    if asked.rsplit(".", 1)[-1].lower() in _LOCAL:
        standard.runner = _FN_API_RUNNER
        structlog.get_logger("rowbeam").info("runner_chosen", asked=asked or None, runner="FnApiRunner")
    else:
        _check_runner(asked)
    return options


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


def _check_runner(asked: str) -> None:
    try:
        create_runner(asked)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(
            f"--runner={asked}: {' '.join(str(error).split()).rstrip('.')}; correct the name, or leave it out to run here"
        ) from error


def _quiet_failures() -> None:
    if logging.getLogger().getEffectiveLevel() > logging.DEBUG:
        for name in _FAILURE_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def runner_name(options: PipelineOptions) -> str:
    """Return the runner's short name for the manifest."""
    return str(options.view_as(StandardOptions).runner).rsplit(".", 1)[-1]
