"""Every way to fail has a test that reaches it."""

import ast

import pytest

from tests.guards.sources import ROOT
from transforms.records.failure import KINDS, RETRYABLE, RUN_STOPPING, SETTLED, FailureKind


def _named_in_tests():
    """Return the members of FailureKind that test files name, as an attribute or by their word."""
    named = set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path.name == "test_failure_kinds.py":
            continue
        text = path.read_text(encoding="utf-8")
        if "FailureKind" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and node.attr in FailureKind.__members__:
                named.add(node.attr)
    return named


def test_each_failure_kind_is_reached_by_some_test():
    """A new kind brings the test that makes it happen."""
    assert set(FailureKind.__members__) - _named_in_tests() == set()


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_kind_is_retried_or_settled_or_ends_the_run_but_not_two_of_them(kind):
    """What another try may cure must be asked again by the next run, and what stops the run is neither."""
    assert sum(kind in kinds for kinds in (RETRYABLE, RUN_STOPPING, SETTLED)) <= 1
    assert KINDS[str(kind)] is kind
