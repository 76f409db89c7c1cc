"""The user's choice of runner as Beam options.

The local default is FnApiRunner. Beam's DirectRunner falls back to an older runner once GroupIntoBatches is in the
graph, which is several times slower and breaks self-checkpointing splittable DoFns, so `--runner=DirectRunner` (and
no runner at all) also runs on FnApiRunner.
"""

from collections.abc import Sequence

import structlog
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

_LOCAL = {"", "directrunner", "fnapirunner", "bundlebaseddirectrunner"}
_FN_API_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Return Beam's options for the arguments after `--`, with the local runner made FnApiRunner."""
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    asked = standard.runner or ""
    if asked.rsplit(".", 1)[-1].lower() in _LOCAL:
        standard.runner = _FN_API_RUNNER
        structlog.get_logger("rowbeam").info("runner_chosen", asked=asked or None, runner="FnApiRunner")
    return options


def runner_name(options: PipelineOptions) -> str:
    """Return the runner's short name for the manifest."""
    return str(options.view_as(StandardOptions).runner).rsplit(".", 1)[-1]
