"""Where a command writes: tables for people or one JSON line for programs on stdout, one sentence on stderr.

Everything shown passes a Redactor, because rows, errors and answers may hold whatever a provider sent (P9).
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from pipelines.mishaps import EXIT_INTERRUPTED, judge
from transforms.rules.redaction import Redactor

if TYPE_CHECKING:
    from rich.console import Console

#: Width of tables where standard output is no terminal and COLUMNS does not say.
_PIPED_WIDTH = 120


class Screen:
    """One command's way out.

    Args:
        as_json: print facts as one line of JSON instead of tables.
        debug: show tracebacks of what should not fail.
    """

    def __init__(self, *, as_json: bool = False, debug: bool = False) -> None:
        self.as_json = as_json
        self.debug = debug
        #: True while a pipeline may be making calls.
        self.running = False
        self.redactor = Redactor()

    @cached_property
    def console(self) -> "Console":
        """Rich's console on standard output."""
        return make_console(sys.stdout)

    def keep_secret(self, secrets: Iterable[str]) -> None:
        """Never show these values."""
        self.redactor = Redactor(secrets)

    def show(self, facts: dict[str, Any], draw: "Callable[[dict[str, Any], Console], None]") -> None:
        """Print facts: as JSON, or drawn for people."""
        if self.as_json:
            self.print_json(facts)
        else:
            draw(self.redactor.value(facts), self.console)

    def print_json(self, facts: dict[str, Any]) -> None:
        """Print facts as one line of JSON."""
        sys.stdout.write(orjson.dumps(self.redactor.value(facts), default=str).decode() + "\n")
        sys.stdout.flush()

    def complain(self, sentence: str) -> None:
        """Print what is wrong on standard error, "rowbeam: " before each line."""
        lines = [line for line in self.redactor.text(sentence).splitlines() if line.strip()]
        sys.stderr.write("".join(f"rowbeam: {line}\n" for line in lines))
        sys.stderr.flush()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn every exception of a command into one sentence and its exit code (SystemExit)."""
        try:
            yield
        except BrokenPipeError:
            # The reader, such as `head`, has seen enough; what is left in the buffer must not raise at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last stop: each becomes a sentence
            mishap = judge(error, running=self.running)
            if self.debug and mishap.exit_code != EXIT_INTERRUPTED:
                sys.stderr.write(self.redactor.text("".join(traceback.format_exception(error))))
            self.complain(mishap.sentence)
            # After Ctrl-C Python itself may end with another code, if it came while code was being imported.
            if self.running or mishap.exit_code == EXIT_INTERRUPTED:
                leave(mishap.exit_code)
            raise SystemExit(mishap.exit_code) from None


def leave(exit_code: int) -> None:
    """End the process at once: threads that still make calls must not outlive the lease, nor hold up the exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def make_console(stream: Any) -> "Console":
    """Return a console that prints text as it is: no markup, no guessing of what to colour."""
    from rich.console import Console

    width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPED_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
