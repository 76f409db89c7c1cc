"""A lean loopback server of a provider's files: `GET /v1/files/<id>/content` sends `<folder>/<id>`.

`python -m tests.benchmarks.file_server FOLDER` prints its port and ends when its standard input is closed.
"""

import asyncio
import sys
from pathlib import Path

from aiohttp import web


def make_app(folder: Path) -> web.Application:
    """Return the server's routes."""

    async def content(request: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / Path(request.match_info["file_id"]).name)

    app = web.Application()
    app.router.add_get("/v1/files/{file_id}/content", content)
    return app


async def serve(folder: Path) -> None:
    """Serve until standard input is closed."""
    runner = web.AppRunner(make_app(folder), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
