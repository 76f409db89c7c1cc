"""`python -m pipelines.sandbox`: the rehearsal provider without the rowbeam command."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.faults import load_plan
from pipelines.sandbox.server import SandboxSettings, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and serve; return the exit code (2 for a wrong command line)."""
    options = _parser().parse_args(arguments)
    try:
        settings = SandboxSettings(
            port=options.port,
            host=options.host,
            latency_s=options.latency,
            jitter_s=options.jitter,
            faults=load_plan(options.faults),
            seed=options.seed,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            bill_path=options.bill,
            batch=BatchTiming(
                options.batch_validating, options.batch_queue, options.batch_duration, options.batch_window
            ),
        )
        run(settings, as_json=options.json, stop_on_eof=options.stop_on_eof)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose (default)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds every answer takes")
    parser.add_argument("--jitter", type=float, default=0.0, help="seconds added at most")
    parser.add_argument("--faults", default="", help="a YAML or JSON file, or rate_limit=0.05,reset=0.01,storm=2s-5s")
    parser.add_argument("--seed", type=int, default=0, help="changes all answers and faults")
    parser.add_argument("--requests-per-minute", type=_positive, help="limit per provider and model")
    parser.add_argument("--tokens-per-minute", type=_positive, help="limit per provider and model")
    parser.add_argument("--bill", type=Path, help="append every request accepted for payment to this JSONL file")
    parser.add_argument("--batch-validating", type=_seconds, default=0.05, help="seconds a batch is validated")
    parser.add_argument("--batch-queue", type=_seconds, default=0.05, help="seconds it waits before its first row")
    parser.add_argument("--batch-duration", type=_seconds, default=0.5, help="seconds its rows take together")
    parser.add_argument("--batch-window", type=_seconds, help="seconds until it expires (default 24 h)")
    parser.add_argument("--json", action="store_true", help="print the ready line as JSON")
    parser.add_argument("--stop-on-eof", action="store_true", help="stop when standard input, a pipe, ends")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
