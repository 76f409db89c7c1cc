"""Token counts, in OpenTelemetry GenAI names."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. A counter the provider did not give is None, never 0.

    input_tokens includes cached tokens; output_tokens includes reasoning tokens.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None

    def flat(self) -> tuple[int | None, ...]:
        """Return the counts as a tuple, in the order of the fields."""
        return (
            self.input_tokens,
            self.output_tokens,
            self.cache_read_input_tokens,
            self.cache_write_input_tokens,
            self.reasoning_output_tokens,
        )

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum; a count that either lacks is None."""
        pairs = zip(self.flat(), other.flat(), strict=True)
        return Usage(*(None if a is None or b is None else a + b for a, b in pairs))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat."""
        return Usage, self.flat()
