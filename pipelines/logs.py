"""Structured logs: one line per event, for people (console) or machines (JSON), with secrets taken out.

Rowbeam's own events come through structlog's "rowbeam" logger; the logs of Beam and other libraries pass through
the same formatter, so that a key can't leave by their debug lines either (P9).
"""

import logging
import os
import sys
from collections.abc import Iterable
from typing import Any, Literal

import structlog

from transforms.rules.redaction import Redactor

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def setup_logs(level: str, form: Literal["console", "json"], secrets: Iterable[str]) -> None:
    """Send all logs of the process to stderr.

    Args:
        level: debug, info, warning or error.
        form: console or json.
        secrets: values that must never be shown, whatever line they are in.
    """
    redactor = Redactor(secrets)
    renderer: Any = structlog.processors.JSONRenderer()
    if form == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_plain)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_says_something)
    handler.setFormatter(_Redacting(formatter, redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Beam reports its own steps at info; they say nothing about the job.
    logging.getLogger("apache_beam").setLevel("DEBUG" if level == "debug" else "WARNING")
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def known_secrets(names: Iterable[str | None]) -> list[str]:
    """Return the values of the named environment variables that are set."""
    return [os.environ[name] for name in names if name and os.environ.get(name)]


def _says_something(record: logging.LogRecord) -> bool:
    # Beam warns of this on every import without the gcp extra, which only BigQuery needs.
    return not str(record.msg).startswith("apitools not found")


def _plain(sio: Any, exc_info: Any) -> None:
    structlog.dev.plain_traceback(sio, exc_info)


class _Redacting(logging.Formatter):
    """The last hand on every line: whatever a library put into it, a secret leaves it here."""

    def __init__(self, inner: logging.Formatter, redactor: Redactor) -> None:
        super().__init__()
        self._inner = inner
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(self._inner.format(record))
