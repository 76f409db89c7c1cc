"""Beam's options: which runner, and what it may log."""

import logging
from collections.abc import Iterator

import pytest

from pipelines.runners import beam_options, remembered_signatures, runner_name
from transforms.records.errors import ConfigError

BUNDLES = logging.getLogger("apache_beam.runners.common")


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    loggers = [logging.getLogger(), BUNDLES]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize("asked", ["Foo", "no_such_package.Runner", "apache_beam.NoRunner"])
def test_an_unknown_runner_is_the_users_to_correct(asked: str) -> None:
    """The option is named, before the run has a folder."""
    with pytest.raises(ConfigError, match=f"^--runner={asked}: "):
        beam_options([f"--runner={asked}"])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [([], "FnApiRunner"), (["--runner=DirectRunner"], "FnApiRunner"), (["--runner=PrismRunner"], "PrismRunner")],
)
def test_known_runners_are_taken(arguments: list[str], name: str) -> None:
    """The local ones are all Beam's FnApiRunner."""
    assert runner_name(beam_options(arguments)) == name


@pytest.mark.parametrize(("level", "shown"), [("WARNING", False), ("INFO", False), ("DEBUG", True)])
def test_tracebacks_of_failed_bundles_are_for_debugging(level: str, shown: bool) -> None:
    """Otherwise the run's last sentence stands alone."""
    BUNDLES.setLevel(logging.NOTSET)
    logging.getLogger().setLevel(level)
    beam_options([])
    assert BUNDLES.isEnabledFor(logging.ERROR) is shown


def test_remembered_signatures_change_nothing_that_beam_learns_of_methods() -> None:
    """Every method of stages with plain, bound and state parameters reads the same, twice, and the patch goes away."""
    import apache_beam as beam
    from apache_beam.transforms import core

    class Plain(beam.DoFn):
        def process(self, element: int, stamp: object = beam.DoFn.TimestampParam) -> None:
            """Take an element and its time."""

    inspect = core.get_function_args_defaults
    dofns = [Plain(), core.CallableWrapperDoFn(lambda element, extra=3: element), Plain()]
    methods = [getattr(dofn, name) for dofn in dofns for name in ("process", "setup", "start_bundle", "to_runner_api")]
    expected = [inspect(method) for method in methods]
    with remembered_signatures():
        assert [core.get_function_args_defaults(method) for method in methods] == expected
        core.get_function_args_defaults(methods[0])[1].clear()
        assert [core.get_function_args_defaults(method) for method in methods] == expected
    assert core.get_function_args_defaults is inspect
