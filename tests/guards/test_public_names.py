"""What is public says what it is, and a stage is called what its file is called."""

import ast
from collections.abc import Iterator

import pytest

from tests.guards.sources import Module, modules, stages

FORBIDDEN_IN_NAMES = ("Transform", "Source", "Sink", "Reader", "Writer")


def _public(module: Module) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    is_function = isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
                    if is_function and not member.name.startswith("_"):
                        yield f"{node.name}.{member.name}", member


def _is_overload(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(isinstance(item, ast.Name) and item.id in ("overload", "override") for item in decorators)


def _is_beam_hook(name: str) -> bool:
    """Methods that Beam defines: the docstring of their class speaks for them."""
    hooks = ("setup", "start_bundle", "process", "finish_bundle", "teardown", "expand")
    return name.rpartition(".")[2] in hooks


def _bases(node: ast.ClassDef) -> set[str]:
    return {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases}


def _classes(module: Module) -> list[ast.ClassDef]:
    return [node for node in module.tree.body if isinstance(node, ast.ClassDef)]


def test_every_public_name_has_a_docstring() -> None:
    """Every module, public class, function and method says what it does."""
    silent = [module.name for module in modules() if module.is_file and ast.get_docstring(module.tree) is None]
    silent += [
        f"{module.name}.{name}"
        for module in modules()
        for name, node in _public(module)
        if ast.get_docstring(node) is None and not _is_overload(node) and not _is_beam_hook(name)
    ]
    assert not silent, "\n".join(silent)


def test_there_are_stages() -> None:
    """The tables below are not empty by mistake."""
    assert len(stages()) >= 10


@pytest.mark.parametrize("stage", stages(), ids=lambda module: module.name)
def test_stage_exports_one_transform_named_like_its_file(stage: Module) -> None:
    """parse_answers.py holds ParseAnswers, and no second public PTransform."""
    wanted = "".join(word.capitalize() for word in stage.name.rpartition(".")[2].split("_"))
    public = [node.name for node in _classes(stage) if "PTransform" in _bases(node) and not node.name.startswith("_")]
    assert public == [wanted]


@pytest.mark.parametrize("stage", stages(), ids=lambda module: module.name)
def test_stage_keeps_its_workings_private(stage: Module) -> None:
    """DoFns are private and end in DoFn, CombineFns in CombineFn; results are named after their stage."""
    wrong = []
    for node in _classes(stage):
        bases, name = _bases(node), node.name
        if "DoFn" in bases and not (name.startswith("_") and name.endswith("DoFn")):
            wrong.append(f"{name}: a DoFn is private and ends in DoFn")
        if "CombineFn" in bases and not (name.startswith("_") and name.endswith("CombineFn")):
            wrong.append(f"{name}: a CombineFn is private and ends in CombineFn")
        if "NamedTuple" in bases and not name.endswith("Result"):
            wrong.append(f"{name}: what a stage returns ends in Result")
        if "PTransform" in bases and any(word in name for word in FORBIDDEN_IN_NAMES):
            wrong.append(f"{name}: a stage's name is a verb and its object")
    assert not wrong, "\n".join(wrong)
