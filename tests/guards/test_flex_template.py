"""The Flex Template's files say what the tree and the options say; they are built and used where no test runs."""

import json
import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

from pipelines.dataflow.main import plain_arguments
from tests.guards.sources import ROOT

_FOLDER = ROOT / "pipelines" / "dataflow"
#: https://cloud.google.com/dataflow/docs/reference/rest/v1b3/GetTemplateResponse
_TYPES = {"BOOLEAN", "GCS_READ_FILE", "TEXT"}


@pytest.fixture(scope="module")
def parameters() -> dict[str, dict[str, Any]]:
    """The template's parameters by name."""
    return {
        one["name"]: one for one in json.loads((_FOLDER / "metadata.json").read_text(encoding="utf-8"))["parameters"]
    }


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    """The launch's own options by name."""
    from pipelines.options import EnrichOptions

    parser = ArgumentParser(add_help=False)
    EnrichOptions._add_argparse_args(parser)
    return {action.dest: action for action in parser._actions}


def _instructions() -> list[tuple[str, str]]:
    text = (_FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_each_option_is_a_parameter_and_none_else(
    parameters: dict[str, dict[str, Any]], options: dict[str, Any]
) -> None:
    """Only the job must be given."""
    assert set(parameters) == set(options)
    for name, parameter in parameters.items():
        assert parameter["isOptional"] is (name != "job")
        assert set(parameter) == {"name", "label", "helpText", "paramType", "isOptional", "regexes"}
        assert parameter["paramType"] in _TYPES
        assert all(re.compile(one) for one in parameter["regexes"])


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("job", "gs://bucket/jobs/a.yaml", "job.yaml"),
        ("set", "budget.max_usd=25", "budget.max_usd"),
        ("yes", "true", "yes"),
    ],
)
def test_values_are_checked_before_the_launch(
    parameters: dict[str, dict[str, Any]], name: str, good: str, bad: str
) -> None:
    """What a launcher would refuse minutes later is refused in the form."""
    (regex,) = parameters[name]["regexes"]
    assert re.fullmatch(regex, good)
    assert not re.fullmatch(regex, bad)


def test_the_launcher_s_arguments_are_ours(options: dict[str, Any]) -> None:
    """A template gives every parameter a value, a flag too."""
    from pipelines.options import EnrichOptions

    assert set(options) == {"job", "set", "yes"}
    for given, expected in (("true", True), ("false", False)):
        found = EnrichOptions(plain_arguments(["--job=gs://b/j", "--set=a=1", f"--yes={given}", "--project=p"]))
        assert (found.job, found.set, found.yes) == ("gs://b/j", ["a=1"], expected)


def test_what_the_image_copies_is_there() -> None:
    """All that the package is built from, and the two files that the launcher is told of."""
    sources = [word for name, rest in _instructions() if name == "COPY" for word in rest.split()[:-1]]
    assert set(sources) == {
        "pyproject.toml", "setup.py", "README.md", "LICENSE", "constraints.txt", "pipelines", "transforms",
    }  # fmt: skip
    assert [word for word in sources if not (ROOT / word).exists()] == []
    told = dict(rest.split("=", 1) for name, rest in _instructions() if name == "ENV")
    (home,) = [rest for name, rest in _instructions() if name == "WORKDIR"]
    assert set(told) == {"FLEX_TEMPLATE_PYTHON_PY_FILE", "FLEX_TEMPLATE_PYTHON_SETUP_FILE"}
    for file in told.values():
        assert (ROOT / Path(file).relative_to(home)).is_file()


def test_the_base_image_is_the_user_s_to_name() -> None:
    """No registry, no tag: whoever builds it says which."""
    assert _instructions()[:2] == [("ARG", "LAUNCHER"), ("FROM", "${LAUNCHER}")]
