"""Runs under a budget with everything going wrong, and what the sandbox's bill says they spent."""

import random
from decimal import Decimal
from typing import Any

from pipelines.sandbox.server import RunningSandbox
from tests.conformance.batch_jobs import Workshop

#: USD per token of gpt-4o-mini: (input, output), in real time and by batch.
_REAL_TIME = (Decimal("0.00000015"), Decimal("0.0000006"))
_BATCH = (Decimal("0.000000075"), Decimal("0.0000003"))
_MODES = ("per_request", "provider_batch_api", "auto", "serial_bundle")


def spent_usd(sandbox: RunningSandbox) -> Decimal:
    """Return what the bill comes to: all that was accepted, answered or not, at the price table's rates."""
    bill = sandbox.bill(entries=True)
    real_time = bill["input_tokens"] * _REAL_TIME[0] + bill["output_tokens"] * _REAL_TIME[1]
    batches = sum(
        (batch["input_tokens"] * _BATCH[0] + batch["output_tokens"] * _BATCH[1] for batch in bill["batches"]),
        Decimal(0),
    )
    return real_time + batches


def check_chaos(workshop: Workshop, seed: int, rows: int) -> None:
    """Run a job under a budget that is raised whenever it stops, with faults drawn by the seed.

    At no time is more on the bill than the budget allows, nor than the log says is charged; in the end every row has
    its end.
    """
    draw, sandbox = random.Random(seed), workshop.sandbox
    mode = _MODES[seed % len(_MODES)]
    by_batch = mode in ("provider_batch_api", "auto")
    sandbox.set_faults(**_faults(draw, by_batch=by_batch))
    workshop.write(
        "openai",
        rows,
        batching={"mode": mode, "group_size": 7, "max_requests": draw.choice([10, 1000]), "threshold": rows},
        pool={"max_in_flight": draw.choice([1, 5, 50]), "timeout": "1s", "max_attempts": 4},
    )
    # One call may cost 0.0003 USD, half of that in a batch; all of them cost about as much in the end.
    budget = Decimal(draw.choice(["0.0002", "0.0003"] if by_batch else ["0.0004", "0.0005"]))
    stops = 0
    for _ in range(8):
        result = workshop.run(f"budget.max_usd={budget}")
        facts: dict[str, Any] = result.summary["budget"]
        assert spent_usd(sandbox) <= Decimal(facts["charged_usd"]) <= budget, (seed, facts)
        assert Decimal(facts["charged_usd"]) + Decimal(facts["left_usd"]) == budget
        if not result.summary["rows"]["pending"]:
            break
        stops += result.exit_code == 4
        budget *= 20
    assert result.summary["rows"]["pending"] == 0, result.sentence
    assert result.summary["rows"]["in"] == rows
    assert stops, "the budget was never too small: the test shows nothing"


def _faults(draw: random.Random, *, by_batch: bool) -> dict[str, Any]:
    row_faults = {"wrong_json": 0.1, "refusal": 0.03, "truncation": 0.03, "server_error": 0.05}
    call_faults = {"rate_limit": 0.05, "reset": 0.08, "cut_body": 0.05, "hang": 0.02, "empty_choices": 0.02}
    faults: dict[str, Any] = {name: share * draw.random() * 2 for name, share in (row_faults | call_faults).items()}
    faults["retry_after_s"] = 0.05
    if by_batch:
        kinds: list[dict[str, Any]] = [
            {"lost_create": 1},
            {"reject": 1},
            {"expire_at": 0.6},
            {"status_zero": 0.1},
            {"missing": 0.1},
            {"duplicate": 0.1, "unknown": 0.1},
            {"create_error": 1, "status_error": 2},
            {"late_token_limit": 1},
        ]
        faults["batch"] = {key: value for kind in draw.sample(kinds, 2) for key, value in kind.items()}
    return faults
