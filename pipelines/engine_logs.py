"""Which of Beam's own log lines a person sees: a failed bundle is said once, by the run's last sentence."""

import logging

# They log a failed bundle, with its traceback, once for each stage it passed.
_FAILURE_LOGGERS = (
    "apache_beam.runners.common",
    "apache_beam.runners.worker.sdk_worker",
    "apache_beam.runners.worker.data_plane",
    "apache_beam.runners.portability.local_job_service",
    "apache_beam.runners.portability.fn_api_runner.worker_handlers",
)
# A job server that starts and stops with the run is no news.
_SERVER_LOGGERS = ("apache_beam.utils.subprocess_server", "apache_beam.runners.portability.portable_runner")
# What job servers print, logged by Beam at a level that it sets itself; a failure comes back as an exception too.
_SERVER_OUTPUT = ("PrismJobServer", "FlinkJarJobServer")


def quiet_beam() -> None:
    """Keep Beam's tracebacks and its job servers' words from the logs, unless they are at debug."""
    if logging.getLogger().getEffectiveLevel() <= logging.DEBUG:
        return
    for name in _FAILURE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in _SERVER_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _SERVER_OUTPUT:
        logging.getLogger(name).addFilter(_is_debugging)
    logging.getLogger().addFilter(_is_no_job_message)


def _is_debugging(_record: logging.LogRecord) -> bool:
    return logging.getLogger().getEffectiveLevel() <= logging.DEBUG


def _is_no_job_message(record: logging.LogRecord) -> bool:
    """Tell Beam's copies of a job's messages, which it logs without a logger of its own, from all else."""
    return record.module != "portable_runner" or _is_debugging(record)
