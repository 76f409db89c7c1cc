"""ReadAnswers through the runner."""

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
    run = run_stage(lambda root: root | ReadAnswers(segments(str(tmp_path))))
    assert sorted((key, a.kind, a.text, a.lane) for key, a in unpacked(run["main"])) == [
        ("r-0", FailureKind.OK, '{"label":"positive"}', Lane.MAIN),
        ("r-3", FailureKind.REFUSAL, None, Lane.MAIN),
    ]
    assert [(key, a.lane) for key, a in unpacked(run["repair"])] == [("r-2", Lane.REPAIR)]


def test_a_segment_without_answers_gives_nothing(tmp_path):
    """Both lanes are empty."""
    write(tmp_path, make_opened())
    assert run_stage(lambda root: root | ReadAnswers(segments(str(tmp_path)))).outputs == {"main": [], "repair": []}


def test_a_first_run_reads_nothing():
    """Without segments there is no step at all."""
    assert ReadAnswers([]).expand(None) == (None, None)
