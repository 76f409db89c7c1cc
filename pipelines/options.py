"""Options of a launch without the command line tool: `python -m pipelines.enrich --job=... [BEAM OPTIONS]`."""

from argparse import ArgumentParser

from apache_beam.options.pipeline_options import PipelineOptions

from transforms.records.errors import ConfigError


class EnrichOptions(PipelineOptions):
    """--job: the job file. --set: an override such as model.name=gpt-4o, may be repeated. --yes: run without asking."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        # Beam parses the options of every class that was ever imported: one that is required would be so for all.
        parser.add_argument("--job", help="path of the job file (YAML)")
        parser.add_argument("--yes", action="store_true", help="run also where the budget can't be held")
        parser.add_argument("--set", action="append", default=[], help="override of a job value, KEY=VALUE")

    def job_file(self) -> str:
        """Return the job file's path. Raises ConfigError when none is named."""
        if not self.job:
            raise ConfigError("--job=PATH is missing, the job file")
        return str(self.job)
