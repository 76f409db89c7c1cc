"""ReadAnswers through the runner."""

import apache_beam as beam

from tests.stages.harness import run_stage
from tests.unit.storage_builders import RUN, make_call, make_failed_call, make_opened
from transforms.read_answers import ReadAnswers
from transforms.records.failure import FailureKind
from transforms.records.request import Lane
from transforms.storage.ledger import segments, unpack_settled
from transforms.storage.segment_writer import SegmentWriter


def write(folder, *records):
    """Write a segment."""
    with SegmentWriter(str(folder / "answers"), RUN) as segment:
        for record in records:
            segment.append(record)


def unpacked(keyed):
    """Return (key, answer) pairs."""
    return [(key, unpack_settled(packed)) for key, packed in keyed]


def test_settled_answers_come_by_lane(tmp_path):
    """Of all segments; a call that another try may cure is not an answer, nor is a group's record."""
    write(tmp_path, make_opened(), make_call(0), make_failed_call(1, FailureKind.TIMEOUT))
    write(tmp_path, make_call(2, lane=Lane.REPAIR), make_failed_call(3, FailureKind.REFUSAL))
    run = run_stage(lambda root: root | ReadAnswers(str(tmp_path), "this", is_first=False))
    assert sorted((key, a.kind, a.text, a.lane) for key, a in unpacked(run["main"])) == [
        ("r-0", FailureKind.OK, '{"label":"positive"}', Lane.MAIN),
        ("r-3", FailureKind.REFUSAL, None, Lane.MAIN),
    ]
    assert [(key, a.lane) for key, a in unpacked(run["repair"])] == [("r-2", Lane.REPAIR)]


def test_a_segment_without_answers_gives_nothing(tmp_path):
    """Both lanes are empty."""
    write(tmp_path, make_opened())
    assert run_stage(lambda root: root | ReadAnswers(str(tmp_path), "this", is_first=False)).outputs == {
        "main": [],
        "repair": [],
    }


def test_a_first_run_reads_nothing():
    """Without segments there is no step at all."""
    assert ReadAnswers("ledger", "this", is_first=True).expand(None) == (None, None)


def test_its_own_segments_are_left_out(tmp_path):
    """A worker that lists after another has begun to write must not take this run's answers for earlier ones."""
    write(tmp_path, make_call(0))
    run = run_stage(lambda root: root | ReadAnswers(str(tmp_path), RUN, is_first=False))
    assert run.outputs == {"main": [], "repair": []}


def test_the_graph_does_not_grow_with_the_ledger(tmp_path):
    """It holds the folder, however many segments are in it."""
    sizes = []
    for more in (1, 99):
        for _ in range(more):
            write(tmp_path, make_call(0))
        pipeline = beam.Pipeline()
        _ = pipeline | ReadAnswers(str(tmp_path), "this", is_first=False)
        sizes.append(len(pipeline.to_runner_api().SerializeToString()))
    assert len(segments(str(tmp_path))) == 100
    # The pickles differ by a few bytes from one build to the next.
    assert abs(sizes[0] - sizes[1]) < 64
