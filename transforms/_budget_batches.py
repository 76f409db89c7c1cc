"""A run's budget and its batches: how large one may be, and what its results cost."""

from collections.abc import Callable, Generator, Iterable, Mapping
from decimal import Decimal
from typing import TypeVar, cast

from transforms._budget import known_worst_case, open_log
from transforms.providers.base import Provider
from transforms.records.call import CallRecord
from transforms.records.run import CallSettings
from transforms.rules.budget import NO_WORST_CASE, batch_limit
from transforms.rules.price import PriceTable

_Item = TypeVar("_Item")
_End = TypeVar("_End")


class BatchCap:
    """Keeps batches small enough for the budget to bear some of them at a time; without a budget it does nothing."""

    def __init__(self, settings: CallSettings, provider: Provider) -> None:
        self._available: int | None = None
        self._worst = NO_WORST_CASE
        if settings.budget.max_usd is not None:
            self._worst = known_worst_case(settings, provider, PriceTable(), "batch")
            self._available = open_log(settings.ledger, settings.run_id, settings.budget).available()

    def rule(self, requests: list[bytes]) -> Callable[[int, int], bool] | None:
        """Return whether a batch may hold so many bytes and requests.

        Args:
            requests: packed, all that is to be split. Each holds its prompt's texts, so its length bounds theirs.
        """
        if self._available is None:
            return None
        worst = self._worst
        count = len(requests)
        whole = worst.of_bytes(sum(map(len, requests)) + count * worst.fixed_tokens, count)
        most = batch_limit(self._available, whole, count)
        return None if most is None else lambda bytes_, count: worst.of_bytes(bytes_, count) <= most


class BatchSpend:
    """What a batch's results cost, gathered while they are recorded.

    Args:
        custom_ids: of all its requests: what no result is seen of may have been billed.
        costs: what an earlier try at collecting has on record, by custom_id.
    """

    def __init__(self, custom_ids: Iterable[str], costs: Mapping[str, Decimal]) -> None:
        self.unknown = set(custom_ids)
        self.known_usd = Decimal(0)
        for custom_id, cost_usd in costs.items():
            self._add(custom_id, cost_usd)

    def watch(self, collected: Generator[_Item, None, _End]) -> Generator[_Item, None, _End]:
        """Pass on what a collection gives, and add up the records among it."""
        while True:
            try:
                item = next(collected)
            except StopIteration as end:
                return cast("_End", end.value)
            # Exchanges with the batch API cost nothing, and are of no request.
            if isinstance(item, CallRecord) and item.custom_id is not None and item.cost_usd is not None:
                self._add(item.custom_id, item.cost_usd)
            yield item

    def _add(self, custom_id: str, cost_usd: Decimal) -> None:
        if custom_id in self.unknown:
            self.known_usd += cost_usd
            self.unknown.discard(custom_id)
