"""WriteDeadLetters through the runner."""

import apache_beam as beam

from tests.stages.harness import run_stage
from tests.stages.parts_read import read_parts
from transforms.records.failure import DeadLetter, FailureKind, Stage
from transforms.write_dead_letters import WriteDeadLetters


def write(folder, letters):
    """Run the stage; return (folder, path) of each part."""
    return run_stage(lambda root: root | beam.Create(letters) | WriteDeadLetters(folder, "run-1"))["main"]


def test_a_letter_is_one_line_with_the_whole_row(tmp_path):
    """An object where the row could be read, the raw text where not; keys as DESIGN section 4 says."""
    letters = [
        DeadLetter("a", Stage.CALL, FailureKind.TIMEOUT, "no reply", 3, True, "a.csv", 2, {"id": "a"}, "q", "c", "r0"),
        DeadLetter("b", Stage.READ, FailureKind.UNDECODABLE, "bad byte", 0, False, "a.csv", 3, "raw \ufffd"),
    ]
    folder = str(tmp_path / "d")
    found = {row["row_id"]: row for row in read_parts(folder, write(folder, letters))}
    assert found == {
        "a": {
            "row_id": "a", "run_id": "run-1", "stage": "call", "kind": "timeout", "reason": "no reply",
            "attempts": 3, "retryable": True, "request_id": "q", "call_id": "c",
            "source": {"path": "a.csv", "line": 2}, "row": {"id": "a"},
        },
        "b": {
            "row_id": "b", "run_id": "run-1", "stage": "read", "kind": "undecodable", "reason": "bad byte",
            "attempts": 0, "retryable": False, "request_id": None, "call_id": None,
            "source": {"path": "a.csv", "line": 3}, "row": "raw \ufffd",
        },
    }  # fmt: skip


def test_no_letters_leave_no_file(tmp_path):
    """A folder of dead letters means that there are some."""
    assert write(str(tmp_path / "d"), []) == []
    assert not (tmp_path / "d").exists()
