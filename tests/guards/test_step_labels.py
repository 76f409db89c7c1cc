"""Steps are labelled by hand, keep their labels, and no branch of the path ends in nothing.

A runner that updates a running job finds its state by step labels, so a label is changed on purpose or not at all:
after such a change, replace step_labels.txt (or step_labels_batch.txt, for a job that goes by the provider's batch
API) by the list that the failing test prints.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.guards.sources import Module, modules
from tests.guards.whole_path import PATHS, build_path

GOLDEN = {
    "real_time": Path(__file__).with_name("step_labels.txt"),
    "batch": Path(__file__).with_name("step_labels_batch.txt"),
}
LABEL = re.compile(r"[A-Z][A-Za-z0-9]*")

#: Outputs that nobody takes, and why.
UNTAKEN = {
    "EnrichRows/AskAgain/FlattenRepairs": "an answer is repaired once, so nothing comes out here",
    "EnrichRows/AskAgain/ReuseAnswers/ChooseAnswer[crowd]": "a repair is asked for one request: no two are equal",
    "EnrichRows/SettleCrowd/SettleRows/SettleRow[ends]": "the crowd settles last, so nobody waits for its ends",
}

#: A second round by batch sends nothing round again.
UNTAKEN_BY_BATCH = {"EnrichRows/AskModel/AskBatches/SecondRound/CollectBatches/CollectBatch[batch]"}


@dataclass
class Graph:
    """A built pipeline: our own step labels, our branches (tagged outputs and Flattens), and what is an input."""

    labels: set[str] = field(default_factory=set)
    branches: dict[str, Any] = field(default_factory=dict)
    taken: set[Any] = field(default_factory=set)


def _is_ours(node: Any) -> bool:
    made_by = type(node.transform).__module__ if node is not None and node.transform is not None else ""
    return made_by.startswith(("pipelines.", "transforms."))


def _read(pipeline: Any) -> Graph:
    from apache_beam import Flatten
    from apache_beam.pipeline import PipelineVisitor

    graph = Graph()

    class Reader(PipelineVisitor):
        def enter_composite_transform(self, transform_node: Any) -> None:
            self.visit_transform(transform_node)

        def visit_transform(self, transform_node: Any) -> None:
            graph.taken |= {*transform_node.inputs, *(side.pvalue for side in transform_node.side_inputs)}
            if _is_ours(transform_node.parent):
                graph.labels.add(transform_node.full_label)
                for tag in getattr(transform_node.transform, "_tags", ()):
                    graph.branches[f"{transform_node.full_label}[{tag}]"] = transform_node.outputs.get(tag)
                if isinstance(transform_node.transform, Flatten):
                    graph.branches[transform_node.full_label] = transform_node.outputs[None]

    pipeline.visit(Reader())
    return graph


@pytest.fixture(scope="module", params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    """Which path."""
    return str(request.param)


@pytest.fixture(scope="module")
def pipeline(path: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The main job's pipeline with every branch."""
    return build_path(path, tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def graph(pipeline: Any) -> Graph:
    """What that pipeline is made of."""
    return _read(pipeline)


def _beam_modules() -> list[Module]:
    return [m for m in modules() if any(name.partition(".")[0] == "apache_beam" for name, _ in m.imports())]


def _steps(module: Module) -> Iterator[tuple[int, ast.expr]]:
    """Yield (line, what is on the right) of every `|` that applies something; unions of types and dicts are not such."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and not _is_plain(node.right):
            yield node.lineno, node.right


def _is_plain(node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Attribute | ast.Constant | ast.Subscript | ast.Dict)


def _label(step: ast.expr) -> str | None:
    """Return the label written at a step; what a loop fills in counts as a word (the golden list pins the outcome)."""
    if not (isinstance(step, ast.BinOp) and isinstance(step.op, ast.RShift)):
        return None
    parts = step.left.values if isinstance(step.left, ast.JoinedStr) else [step.left]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "Word" for part in parts)


def test_every_step_is_labelled_by_hand() -> None:
    """Each step is `"CamelCase" >> step`; none is left to Beam, which names a lambda's step by its line number."""
    wrong = [
        f"{module.name}:{line}: {ast.unparse(step)[:60]}"
        for module in _beam_modules()
        for line, step in _steps(module)
        if LABEL.fullmatch(_label(step) or "") is None
    ]
    assert not wrong, "\n".join(wrong)


def test_labels_are_the_golden_list(path: str, graph: Graph) -> None:
    """The labels of the whole path are those of its list."""
    labels = sorted(graph.labels)
    assert labels == GOLDEN[path].read_text(encoding="utf-8").split(), "\n".join(["the labels are now:", *labels])


def test_every_branch_is_consumed(path: str, graph: Graph) -> None:
    """Each tagged output of our stages (failures, pending ...) and each Flatten is the input of another step."""
    assert any(name.endswith("[failures]") for name in graph.branches)
    untaken = {name for name, output in graph.branches.items() if output is None or output not in graph.taken}
    assert untaken == set(UNTAKEN) | (UNTAKEN_BY_BATCH if path == "batch" else set())


def test_what_is_flattened_and_grouped_has_one_coder(pipeline: Any) -> None:
    """A Flatten of unlike coders before a GroupByKey writes keys that a portable runner reads wrongly or not at all."""
    built = pipeline.to_runner_api().components
    coders = {name: collection.coder_id for name, collection in built.pcollections.items()}
    steps = list(built.transforms.values())
    grouped = {
        name for step in steps if step.spec.urn == "beam:transform:group_by_key:v1" for name in step.inputs.values()
    }
    flattens = [
        step for step in steps if step.spec.urn == "beam:transform:flatten:v1" and grouped & set(step.outputs.values())
    ]
    assert flattens
    unlike = {
        step.unique_name: sorted(found)
        for step in flattens
        if len(found := {coders[name] for name in (*step.inputs.values(), *step.outputs.values())}) > 1
    }
    assert unlike == {}
