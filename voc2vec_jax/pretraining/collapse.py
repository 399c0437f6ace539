"""Detects collapse: numbers that look degenerate for a while, not for a step."""

from collections.abc import Callable

PATIENCE_STEPS = 20  # single steps look degenerate now and then in healthy runs


class CollapseDetector:
    """Counts consecutive steps with signs of collapse, and reports each episode once."""

    def __init__(self, signs_of: Callable[[dict], list[str]]):
        self._signs_of = signs_of
        self._steps = 0

    def see(self, row: dict) -> str | None:
        """A sentence at the step that completes `PATIENCE_STEPS` suspicious ones in a row; otherwise None."""
        signs = self._signs_of(row)
        self._steps = self._steps + 1 if signs else 0
        if self._steps != PATIENCE_STEPS:
            return None
        return f"the run looks collapsed for {PATIENCE_STEPS} steps: {'; '.join(signs)}"
