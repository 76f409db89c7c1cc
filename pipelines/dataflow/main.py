"""What the Flex Template's launcher runs: the job is handed to Dataflow, and the launcher ends.

Dataflow starts a template's job once this program has ended, so nothing is waited for here:
`python -m pipelines.left_runs` closes the run when the job is done.
Source: https://cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates.
"""

import sys
from collections.abc import Sequence


def plain_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the launcher's arguments as a command line has them: a template's parameters all have values."""
    return ["--yes" if word == "--yes=true" else word for word in arguments if word != "--yes=false"]


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the job over; returns an exit code of DESIGN section 6."""
    from pipelines.left_runs import launch

    return launch(plain_arguments(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    # As in pipelines/enrich.py: what is pickled must not be of __main__.
    from pipelines.dataflow.main import main as importable_main

    sys.exit(importable_main())
