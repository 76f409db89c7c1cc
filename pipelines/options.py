"""Options of a launch without the command line tool: `python -m pipelines.enrich --job=... [BEAM OPTIONS]`."""

from argparse import ArgumentParser

from apache_beam.options.pipeline_options import PipelineOptions


class EnrichOptions(PipelineOptions):
    """--job: the job file. --set: an override such as model.name=gpt-4o, may be repeated. --yes: run without asking."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--job", required=True, help="path of the job file (YAML)")
        parser.add_argument("--yes", action="store_true", help="run also where the budget can't be held")
        parser.add_argument("--set", action="append", default=[], help="override of a job value, KEY=VALUE")
