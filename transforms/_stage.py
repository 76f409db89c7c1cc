"""What stages share: output tags, and counters with stable names. Imported by stages only."""

from collections import Counter
from typing import Any

from apache_beam import metrics, pvalue
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

REQUESTS = "requests"
ANSWERS = "answers"
FAILURES = "failures"
OUTCOMES = "outcomes"
POSITIONS = "positions"
PENDING = "pending"
REPAIRS = "repairs"
CALLS = "calls"
CROWD = "crowd"
IN_FLIGHT = "in_flight"
ENDS = "ends"


#: Live counts of this process, "Stage/name" to count: what the progress display shows of a local run.
live: Counter[str] = Counter()


def at_bundle_end(item: Any) -> Any:
    """Wrap an element, tagged or not, as Beam wants what `finish_bundle` yields."""
    if isinstance(item, pvalue.TaggedOutput):
        return pvalue.TaggedOutput(item.tag, at_bundle_end(item.value))
    return WindowedValue(item, MIN_TIMESTAMP, (GlobalWindow(),))


class Counters:
    """Counters and distributions of one stage; the namespace is the PTransform's name.

    Made in a DoFn's `setup`, so that nothing of Beam's metrics is pickled.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._counters: dict[str, Any] = {}
        self._distributions: dict[str, Any] = {}

    def add(self, name: str, count: int = 1) -> None:
        """Add to the counter `name` (a snake_case noun with its unit)."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = metrics.Metrics.counter(self._stage, name)
        counter.inc(count)
        live[f"{self._stage}/{name}"] += count

    def observe(self, name: str, value: int) -> None:
        """Add a value to the distribution `name`."""
        distribution = self._distributions.get(name)
        if distribution is None:
            distribution = self._distributions[name] = metrics.Metrics.distribution(self._stage, name)
        distribution.update(value)
