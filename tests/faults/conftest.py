"""Every output that a test of faults leaves is verified, as those of whole runs are."""

import pytest

from tests.conformance.verified_outputs import MARK, _outputs_hold

__all__ = ["_outputs_hold"]


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark of tests that damage their outputs."""
    config.addinivalue_line("markers", f"{MARK}(reason): the test damages its outputs; they are not verified")
