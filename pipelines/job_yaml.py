"""Reading YAML as people mean it: no duplicate keys, and only numbers, true, false and null are not text.

Unlike YAML 1.1, `yes`, `no`, `on`, `off`, dates, `010` and `1:30` stay text, so that `enum: [yes, no]` and
`api_version: 2023-06-01` are what they look like.
"""

import re
from typing import Any

import yaml

from transforms.records.errors import ConfigError


class _JobLoader(yaml.SafeLoader):
    """Safe loader with the rules of this module."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as in the base class

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys are text and differ."""
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            line = key_node.start_mark.line + 1
            key = key_node.value
            if key in lines:
                problem = f'the key "{key}" is there twice (first on line {lines[key]}); remove one'
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            lines[key] = line
            if key_node.tag != "tag:yaml.org,2002:merge":
                key_node.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


_JobLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_JobLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_JobLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_JobLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_JobLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


_JOB_NEEDS = "a job needs at least name, input, output, prompt, answer and model"


def load_mapping(text: bytes, name: str, needs: str = _JOB_NEEDS) -> dict[str, Any]:
    """Parse a YAML document that is a mapping.

    Args:
        text: the file's bytes, UTF-8.
        name: what errors call the file.
        needs: what the mapping has to hold, for the error of a file that holds none.

    Raises:
        ConfigError: it is no YAML (with line and column), is empty, is no mapping, or has a key twice.
    """
    try:
        loaded = yaml.load(text.decode("utf-8-sig"), _JobLoader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}{_problem(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deeply") from error
    _refuse_loops(loaded, name)
    if not isinstance(loaded, dict):
        what = "is empty" if loaded is None else "is not a mapping of keys to values"
        raise ConfigError(f"{name}: {what}; {needs}")
    return loaded


def load_value(text: str, name: str) -> Any:
    """Read the value of an override: a scalar, or a flow list or mapping such as [a, b] and {a: 1}.

    Text that begins like a template ({{ or {%) and text with ": " or " #" in it is taken as it is.

    Raises:
        ConfigError: it begins like a list, a mapping or quoted text, but is none.
    """
    text = text.strip()
    if text[:1] in {"[", "{", '"', "'"} and text[:2] not in {"{{", "{%"}:
        try:
            loaded = yaml.load(text, _JobLoader)  # noqa: S506 - a SafeLoader
        except RecursionError as error:
            raise ConfigError(f"{name}: nested too deeply") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{name}: the value is not valid YAML{_problem(error)}") from error
        _refuse_loops(loaded, name)
        return loaded
    loader = _JobLoader("")
    try:
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        return loader.construct_object(yaml.ScalarNode(tag, text))
    finally:
        loader.dispose()


def _refuse_loops(loaded: Any, name: str) -> None:
    """Raise ConfigError when an alias (*name) stands inside what it stands for; aliases elsewhere are fine."""
    above: set[int] = set()
    sound: set[int] = set()

    def walk(node: Any) -> None:
        if not isinstance(node, dict | list) or id(node) in sound:
            return
        if id(node) in above:
            raise ConfigError(f"{name}: an alias (*) stands inside its own anchor (&), without end; remove it")
        above.add(id(node))
        for member in node.values() if isinstance(node, dict) else node:
            walk(member)
        above.remove(id(node))
        sound.add(id(node))

    walk(loaded)


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f": line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return f": {str(error).splitlines()[0]}"
