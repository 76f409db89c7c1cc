"""The handler's own request function, with a clock on it; importable, so that Beam pickles it by name."""

import time
from collections.abc import Sequence
from typing import Any

#: (start, end) of each call of the request function, in seconds of the performance counter.
spans: list[tuple[float, float]] = []


def timed_message(model_name: str, batch: Sequence[str], client: Any, inference_args: dict[str, Any]) -> Any:
    """Ask as `message_from_string` does, and note when."""
    from apache_beam.ml.inference.anthropic_inference import message_from_string

    started = time.perf_counter()
    answers = message_from_string(model_name, batch, client, inference_args)
    spans.append((started, time.perf_counter()))
    return answers


def asking_s() -> float:
    """Return the seconds from the first question to the last answer."""
    return max(end for _, end in spans) - min(start for start, _ in spans)
