"""The job graph as an engine far away gets it: built offline, whole, small, and grouped by keys that are always the same.

Dataflow refuses a graph of more than 10 MB (https://cloud.google.com/dataflow/quotas) and groups by encoded keys, so
a key's coder must give the same bytes on every worker.
"""

import re
from typing import Any

import pytest

from tests.guards.whole_path import PATHS, build_path

_LONGEST_STAGE_BYTES = 64 << 10
_GRAPH_BYTES = 2 << 20
_GROUP_BY_KEY = "beam:transform:group_by_key:v1"
_PAR_DO = "beam:transform:pardo:v1"
#: What a name holds that differs from one build to the next, or from one version of a file to the next.
_PASSING = re.compile(r"lambda|0x[0-9a-f]{4,}|\.py:\d+| at ")
#: Inside of Beam's own Create, and the same wherever the same Beam is: launcher and workers share its version.
_BEAMS_OWN = re.compile(r"/FlatMap\(<lambda at core\.py:\d+>\)$")
#: Side inputs of the path, each with what bounds it.
SIDE_INPUTS = {
    "RouteRequests": "the number of fresh requests",
    "RouteAgain": "the number of requests that go by batch once more",
    "ConserveRows": "one digest per worker's bundle of rows, not one per row",
    "CloseRun": "one count and one file name per bundle",
}


@pytest.fixture(scope="module", params=PATHS)
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The portable form of the path, which every engine but the local one is handed."""
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(["--runner=FlinkRunner", "--environment_type=LOOPBACK"])
    return build_path(request.param, tmp_path_factory.mktemp("graph"), options).to_runner_api()


def test_no_name_changes_from_build_to_build(graph: Any) -> None:
    """Neither a lambda, nor an address, nor a line number is in the name of a step."""
    names = [node.unique_name for node in graph.components.transforms.values()]
    assert len(names) > 100
    assert not [name for name in names if _PASSING.search(_BEAMS_OWN.sub("", name))]


def test_keys_are_encoded_the_same_everywhere(graph: Any) -> None:
    """The coder of each key that is grouped by is deterministic by Beam's own word."""
    from apache_beam.coders import Coder
    from apache_beam.runners.pipeline_context import PipelineContext

    context = PipelineContext(graph.components)
    wrong, seen = [], 0
    for node in graph.components.transforms.values():
        if node.spec.urn != _GROUP_BY_KEY:
            continue
        (source,) = node.inputs.values()
        coder: Coder = context.coders.get_by_id(graph.components.pcollections[source].coder_id)
        seen += 1
        if not coder.key_coder().is_deterministic():
            wrong.append(f"{node.unique_name}: {coder.key_coder()}")
    assert seen >= 5
    assert not wrong, wrong


def test_the_graph_is_small(graph: Any) -> None:
    """No stage carries data: its size does not grow with the input, the ledger or the run's history."""
    sizes = {node.unique_name: len(node.spec.payload) for node in graph.components.transforms.values()}
    assert not {name: size for name, size in sizes.items() if size > _LONGEST_STAGE_BYTES}
    assert len(graph.SerializeToString()) < _GRAPH_BYTES


def test_side_inputs_are_bounded(graph: Any) -> None:
    """Each is of a stage that says what bounds it: a side input is held in memory by every worker."""
    from apache_beam.portability.api import beam_runner_api_pb2

    found = set()
    for node in graph.components.transforms.values():
        if node.spec.urn == _PAR_DO:
            payload = beam_runner_api_pb2.ParDoPayload.FromString(node.spec.payload)
            if payload.side_inputs:
                found.add(node.unique_name)
    unknown = [name for name in found if not any(f"/{stage}" in name for stage in SIDE_INPUTS)]
    assert not unknown, unknown


def test_stages_come_back_from_their_pickles(graph: Any) -> None:
    """What a worker unpickles is ours, under importable names: nothing was defined in an entry file."""
    from apache_beam.internal import pickler
    from apache_beam.portability import python_urns
    from apache_beam.portability.api import beam_runner_api_pb2

    seen = 0
    for node in graph.components.transforms.values():
        if node.spec.urn != _PAR_DO:
            continue
        payload = beam_runner_api_pb2.ParDoPayload.FromString(node.spec.payload)
        if payload.do_fn.urn == python_urns.PICKLED_DOFN_INFO:
            dofn = pickler.loads(payload.do_fn.payload)[0]
            assert type(dofn).__module__ != "__main__", node.unique_name
            seen += 1
    assert seen > 30
