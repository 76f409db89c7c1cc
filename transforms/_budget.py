"""The run's budget in one process (P6): the log, the purse of its real-time calls, and the holds of its batches.

A killed process settles nothing: its slices stay charged in full, since what it had in flight may have been billed.
A batch's hold outlives its run: whoever collects the batch settles it.
"""

import itertools
import re
import secrets
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any

import orjson

from transforms.providers.base import Provider
from transforms.providers.budget import Purse
from transforms.records.batch import BatchRef
from transforms.records.errors import ConfigError
from transforms.records.request import Prompt
from transforms.records.run import CallSettings
from transforms.records.settings import BudgetSettings
from transforms.rules.budget import (
    NO_WORST_CASE,
    WorstCase,
    batch_charge,
    units_down,
    units_up,
    usd_of,
    usd_text,
    worst_case,
)
from transforms.rules.place import is_same_place
from transforms.rules.price import PriceTable, Processing
from transforms.storage.batch_fold import read_entry
from transforms.storage.batch_members import read_members
from transforms.storage.budget_log import Allowance, BudgetLog

_EMPTY = Prompt("", (("user", ""),))
_STANDARD_TIERS = ("default", "auto", "standard", "standard_only")
#: Top-level members of a request's body that make it cost what the price table does not say, and why.
_UNPRICED_MEMBERS = {
    "tools": "is billed by use",
    "web_search_options": "is billed by use",
    "plugins": "is billed by use",
    "mcp_servers": "is billed by use",
    "container": "is billed by use",
    "speed": "has a price of its own",
    "inference_geo": "has a price of its own",
    "modalities": "has a price of its own",
    "audio": "has a price of its own",
    "models": "lets other models answer, at their prices",
    "prediction": "bills what was predicted wrongly as output",
    "prompt": "adds a text of unknown length",
    "previous_response_id": "adds a text of unknown length",
    "conversation": "adds a text of unknown length",
}
_LIMITS = frozenset({"max_completion_tokens", "max_output_tokens", "max_tokens"})
#: Models that search for every answer, which is billed beside the tokens (OpenAI's, and Perplexity's on OpenRouter).
_SEARCHES = re.compile(r"-search-preview|-search-api|deep-research|^perplexity/")
#: Less than this the log can't tell.
_LEAST_USD = usd_of(1)


def open_log(ledger: str, run_id: str, budget: BudgetSettings) -> BudgetLog:
    """Return the log of a job that has a budget.

    Raises:
        ConfigError: no log can keep an account of such an amount.
    """
    assert budget.max_usd is not None  # noqa: S101 - the caller asked
    if budget.max_usd < _LEAST_USD:
        raise ConfigError(f"budget.max_usd: {budget.max_usd} is less than any request costs; raise it")
    counted = run_id if budget.per == "run" else None
    return BudgetLog(ledger, run_id, Allowance(units_down(budget.max_usd), counted))


def find_worst_case(
    provider: Provider,
    prices: PriceTable,
    processing: Processing,
    *,
    output_limit: int | None,
    has_schema: bool,
) -> WorstCase | str:
    """Return what a request of the job may cost at most, or, in one clause, why nobody knows.

    Args:
        provider: with the answer's schema.
        prices: the price table.
        processing: a batch whose own price is unknown costs what real time does, at most.
        output_limit: the tokens of the longest answer, where the request sends no limit; None where it is unknown.
        has_schema: the provider is told the answer's schema.
    """
    rates = prices.ceiling(provider.name, provider.price_model, processing)
    if rates is None:
        return f"the price table has no {provider.price_model} of {provider.name}"
    body = provider.body(_EMPTY)
    if why := _unpriced(provider.price_model, body):
        return why
    limit = provider.max_output_tokens or output_limit
    if limit is None:
        if any(rates):
            return "an answer may be of any length: set model.params.max_output_tokens"
        limit = 0
    return worst_case(rates, len(orjson.dumps(body)), limit, has_schema=has_schema)


def _unpriced(model: str, body: dict[str, Any]) -> str | None:
    """Say what in a request's body bills in a way that the price table does not know."""
    for name, why in _UNPRICED_MEMBERS.items():
        if body.get(name):
            return f"model.params.extra.{name} {why}"
    if len(_LIMITS & body.keys()) > 1:
        return "the request sets two output limits: keep model.params.max_output_tokens alone"
    if '"ttl":"1h"' in orjson.dumps(body.get("cache_control")).decode():
        return "the price table has no prices of caches kept for an hour (model.params.extra.cache_control)"
    if _SEARCHES.search(model):
        return f"{model} searches for its answers, and searches are billed by use"
    tier = body.get("service_tier")
    return None if tier is None or tier in _STANDARD_TIERS else f"the price table has no prices of service tier {tier}"


def known_worst_case(
    settings: CallSettings, provider: Provider, prices: PriceTable, processing: Processing
) -> WorstCase:
    """Return the worst case of a run's requests; NO_WORST_CASE where nobody knows it."""
    limit, has_schema = settings.output_limit, settings.schema is not None
    found = find_worst_case(provider, prices, processing, output_limit=limit, has_schema=has_schema)
    return found if isinstance(found, WorstCase) else NO_WORST_CASE


class RunBudget:
    """What one process knows of the run's budget.

    Args:
        settings: of the run; settings.budget.max_usd is set.
        provider: what is asked, with the answer's schema.
        prices: the price table.
    """

    def __init__(self, settings: CallSettings, provider: Provider, prices: PriceTable) -> None:
        self._settings = settings
        self.log = open_log(settings.ledger, settings.run_id, settings.budget)
        self._place = (provider.name, provider.base_url)
        self._batch_worst = known_worst_case(settings, provider, prices, "batch")
        real_time = known_worst_case(settings, provider, prices, "real_time")
        self.purse = Purse(real_time, _SliceBank(self.log, settings.run_id), self._explain_call)
        self._left: set[str] = set()

    def close(self) -> None:
        """Settle what this process has spent in real time; its batches settle themselves. After the pool's end."""
        self.purse.close()

    def has_room(self, ref: BatchRef, attempt: int) -> bool:
        """Say whether a batch could be held now, or is: a bundle that died after its hold left it there."""
        if self.log.held(_batch_id(ref, attempt)) is not None:
            return True
        worst = self._worst_of(ref)
        return worst <= self.log.available() or (self.purse.give_back() and worst <= self.log.available())

    def hold_batch(self, ref: BatchRef, attempt: int) -> bool:
        """Hold a batch's worst case before its create; False where there is no room for it now."""
        return self.log.hold(_batch_id(ref, attempt), self._worst_of(ref), "batch")

    def may_free(self, key: str) -> bool:
        """Say whether this process's calls, or a batch under way, may make room for the batch `key`."""
        return not self.purse.is_idle or any(
            other != key and other not in self._left and self._is_under_way(other)
            for other in (_key_of(entry.id) for entry in self.log.open_holds("batch"))
        )

    def leave(self, key: str) -> None:
        """Note that this run waits for a batch no longer, so that nothing else waits for what it holds."""
        self._left.add(key)

    def explain_batch(self, ref: BatchRef) -> str:
        """Say why a batch stays unsent, and what to do."""
        return self._explain(f"the next batch, of {ref.request_count:,} requests,", self._worst_of(ref))

    def void_batch(self, ref: BatchRef, attempt: int) -> None:
        """Settle a create that came to nothing; what was never held needs no word."""
        entry_id = _batch_id(ref, attempt)
        if self.log.held(entry_id) is not None:
            self.log.settle(entry_id, 0, "batch")

    def settle_batch(self, ref: BatchRef, attempt: int, known_usd: Decimal, unknown: AbstractSet[str]) -> None:
        """Settle a collected batch at the costs that are known, and the worst case of the others (custom ids)."""
        entry_id, worst = _batch_id(ref, attempt), 0
        if unknown:
            members = read_members(self._settings.ledger, ref.batch_key)
            lengths = [member.length for member in members if member.custom_id in unknown]
            worst = self._batch_worst.of_bytes(sum(lengths), len(lengths))
        held = self.log.held(entry_id)
        self.log.settle(entry_id, batch_charge(held, units_up(known_usd), worst), "batch")

    def _worst_of(self, ref: BatchRef) -> int:
        return self._batch_worst.of_bytes(ref.byte_count, ref.request_count)

    def _is_under_way(self, key: str) -> bool:
        entry = read_entry(self._settings.ledger, key)
        if entry is None or not entry.is_in_flight:
            return False
        return is_same_place((entry.staged.provider_name, entry.staged.address), self._place)

    def _explain_call(self, worst: int) -> str:
        return self._explain("the next request", worst)

    def _explain(self, what: str, worst: int) -> str:
        budget = self._settings.budget
        assert budget.max_usd is not None  # noqa: S101 - there is a budget
        spent, limit = self.log.charged() - self.purse.unused, units_down(budget.max_usd)
        whose = "of this run" if budget.per == "run" else "of this output"
        return (
            f"the budget {whose} has no room: {usd_text(spent)} of {usd_text(limit)} USD are spent or held, and {what} "
            f"may cost up to {usd_text(worst)} USD; raise budget.max_usd and run the job again"
        )


class _SliceBank:
    """Slices of the log in the name of one process; see `providers.budget.Bank`."""

    def __init__(self, log: BudgetLog, run_id: str) -> None:
        self._log = log
        self._prefix = f"slice:{run_id}:{secrets.token_hex(6)}"
        self._accounts = itertools.count()
        self._numbers = itertools.count()
        self._account = self._new_account()
        self._has_slices = False

    def take(self, need: int) -> int:
        taken = self._log.take_slice(f"{self._account}#{next(self._numbers)}", need)
        self._has_slices = self._has_slices or taken > 0
        return taken

    def settle(self, charged: int) -> None:
        if self._has_slices or charged:
            self._log.settle(self._account, charged)
        self._account, self._has_slices = self._new_account(), False

    def _new_account(self) -> str:
        return f"{self._prefix}.{next(self._accounts)}"


def _batch_id(ref: BatchRef, attempt: int) -> str:
    return f"batch:{ref.batch_key}:{ref.staged_run_id}:{attempt}"


def _key_of(entry_id: str) -> str:
    return entry_id.split(":")[1]
