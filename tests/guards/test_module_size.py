"""Modules stay small enough to be read at one sitting."""

from tests.guards.sources import modules

MODULE_LINES = 300
STAGE_LINES = 150


def test_modules_and_stages_stay_small() -> None:
    """No module is over 300 lines, no stage over 150."""
    limits = {module: STAGE_LINES if module.is_stage else MODULE_LINES for module in modules()}
    over = [f"{m.name}: {m.line_count} lines, {limit} allowed" for m, limit in limits.items() if m.line_count > limit]
    assert not over, "\n".join(over)
