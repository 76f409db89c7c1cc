"""Providers for tests of the pool: one that answers with the question, and one that answers by name."""

import asyncio

from tests.unit.pool_builders import (
    Script,
    completion,
)


async def answer(sent):
    """Answer with the question."""
    return completion(f"re: {sent.name}")


def scripted(**replies):
    """Answer by name: a list of responses, exceptions, seconds to wait, or (seconds, response); the last step repeats, others are answered."""

    async def reply(sent):
        steps = replies.get(sent.name, [None])
        step = steps[min(sent.attempt, len(steps)) - 1]
        if isinstance(step, tuple):
            await asyncio.sleep(step[0])
            step = step[1]
        if isinstance(step, float):
            await asyncio.sleep(step)
            step = None
        if isinstance(step, Exception):
            raise step
        return step or completion(f"re: {sent.name}")

    return Script(reply)
