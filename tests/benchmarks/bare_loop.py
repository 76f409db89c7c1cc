"""The peer of the pooled calls: workers over one aiohttp session, and nothing else. Run by `processes.run_child`."""

import asyncio
import itertools
import resource
import sys
import time
from typing import Any

import aiohttp
import orjson

from tests.benchmarks.case import KEY, request_body
from tests.benchmarks.processes import give_result
from transforms.providers.transport import raise_file_limit


async def _worker(session: aiohttp.ClientSession, url: str, numbers: "itertools.count[int]", calls: int) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    while (number := next(numbers)) < calls:
        async with session.post(url, data=orjson.dumps(request_body(number)), headers=headers) as response:
            await response.read()


async def _measure(base_url: str, calls: int, in_flight: int) -> float:
    numbers = itertools.count()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        started = time.perf_counter()
        await asyncio.gather(
            *(_worker(session, f"{base_url}/v1/chat/completions", numbers, calls) for _ in range(in_flight))
        )
        return time.perf_counter() - started


def main(arguments: dict[str, Any]) -> None:
    """Make `calls` calls, `in_flight` at a time."""
    raise_file_limit(arguments["in_flight"] + 256)
    cpu = time.process_time()
    loop_s = asyncio.run(_measure(arguments["base_url"], arguments["calls"], arguments["in_flight"]))
    give_result(
        {
            "loop_s": loop_s,
            "calls_per_s": arguments["calls"] / loop_s,
            "cpu_ms_per_call": (time.process_time() - cpu) * 1000 / arguments["calls"],
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    )


if __name__ == "__main__":
    main(orjson.loads(sys.argv[1]))
