"""Beam's RunInference with its stock Anthropic handler over the same rows. Run by `processes.run_child`."""

import sys
import time
from typing import Any

import orjson

from tests.benchmarks.case import KEY, model_name, prompt
from tests.benchmarks.processes import give_result
from tests.benchmarks.rival_clock import asking_s, timed_message


def main(arguments: dict[str, Any]) -> None:
    """Ask about `rows` rows with the handler's defaults, on the runner that Rowbeam takes.

    Importing Beam counts, as it does in Rowbeam's `run_job`.
    """
    started = time.perf_counter()
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        from apache_beam.ml.inference.anthropic_inference import AnthropicModelHandler
        from apache_beam.ml.inference.base import RunInference
    except ImportError as error:
        give_result({"missing": str(error)})
        return
    handler = AnthropicModelHandler(model_name("anthropic"), timed_message, api_key=KEY)
    options = PipelineOptions(["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"])
    with beam.Pipeline(options=options) as pipeline:
        prompts = pipeline | "Prompts" >> beam.Create([prompt(number) for number in range(arguments["rows"])])
        prompts | "Ask" >> RunInference(handler)
    give_result({"run_s": time.perf_counter() - started, "asking_s": asking_s()})


if __name__ == "__main__":
    main(orjson.loads(sys.argv[1]))
