"""The file endpoints of OpenAI and Azure (providers.md 2.4, 3.3): uploads, result files, contents."""

import asyncio
import re
from typing import Any
from urllib.parse import unquote

from aiohttp import BodyPartReader, web

from pipelines.sandbox.batch_engine import Batch, Part, StoredFile
from pipelines.sandbox.batch_http import BatchCall, BatchRoute
from pipelines.sandbox.batch_spool import Spool
from pipelines.sandbox.exchange import House, Problem

#: Of a batch's request file.
MOST_BYTES = 200 * 1000**2
_CHUNK = 1 << 18
_LONGEST_FIELD = 4096
_TURN = 200


class FileEndpoints:
    """The file endpoints of one provider.

    Result files exist when their batch has ended; a listing shows them only for `purpose=batch_output`.

    Args:
        house: words refusals.
    """

    #: Bounds of expires_after[seconds].
    expiry_bounds_s = (3600, 2_592_000)

    def __init__(self, house: House) -> None:
        self.house = house

    def file_routes(self, prefix: str) -> tuple[BatchRoute, ...]:
        """Return the endpoints below a path such as /v1."""
        one = r"/files/(?P<id>[^/]+)"
        table = (
            ("POST", "/files", self.upload, "upload_begun"),
            ("GET", "/files", self.list_files, ""),
            ("GET", one, self.show_file, ""),
            ("DELETE", one, self.delete_file, ""),
            ("GET", f"{one}/content", self.content, ""),
        )
        return tuple(
            BatchRoute(method, re.compile(re.escape(prefix) + path), self.house, endpoint, event)
            for method, path, endpoint, event in table
        )

    async def upload(self, call: BatchCall) -> web.StreamResponse:
        """Store the file of a multipart form."""
        if not call.request.content_type.startswith("multipart/form-data"):
            return call.refuse(Problem.INVALID, "Missing required parameter: 'file'.", "file")
        spool, name, fields = await _read_form(call.request)
        if call.takes("fail_upload"):
            return call.refuse(Problem.OVERLOADED)
        purpose, expires = fields.get("purpose"), fields.get("expires_after[seconds]")
        if spool is None or not purpose:
            missing = "purpose" if spool else "file"
            return call.refuse(Problem.INVALID, f"Missing required parameter: '{missing}'.", missing)
        if spool.size > MOST_BYTES:
            return call.refuse(Problem.INVALID, "File is too large.")
        if expires is not None and not self._is_expiry(expires):
            text = "Invalid 'expires_after[seconds]': must be an integer from {} to {}.".format(*self.expiry_bounds_s)
            return call.refuse(Problem.INVALID, text, "expires_after")
        extra = {"expires_s": int(expires)} if expires else {}
        file = call.desk.store(self.house.name, spool, name, purpose, extra)
        call.note("upload_done", file_id=file.id)
        await call.hold("hold_upload")
        return call.json(self.shown_file(call, file))

    def _is_expiry(self, text: str) -> bool:
        return text.isdecimal() and self.expiry_bounds_s[0] <= int(text) <= self.expiry_bounds_s[1]

    def file_state(self, call: BatchCall, file: StoredFile) -> str:  # noqa: ARG002 - for Azure
        """Return the status of an uploaded file."""
        return "processed"

    def shown_file(self, call: BatchCall, file: StoredFile) -> dict[str, Any]:
        """Return the object of an uploaded file."""
        expires_s = file.extra.get("expires_s")
        return {
            **_file_object(file.id, file.spool.size, file.created_s, file.name, file.purpose),
            "expires_at": int(file.created_s + expires_s) if expires_s else None,
            "status": self.file_state(call, file),
            "status_details": None,
        }

    async def list_files(self, call: BatchCall) -> web.StreamResponse:
        """Return a page of files, newest first."""
        args = call.args()
        purpose = args.get("purpose")
        if purpose == "batch_output":
            return await self._list_results(call)
        files = [file for file in call.desk.files(self.house.name) if purpose in (None, file.purpose)]
        if args.get("order") == "asc":
            files.reverse()
        page, has_more = call.page([file.id for file in files], 10_000, 10_000)
        return call.json(_listed([self.shown_file(call, file) for file in files[page]], has_more=has_more))

    async def _list_results(self, call: BatchCall) -> web.Response:
        data = []
        for batch in call.desk.batches(self.house.name):
            for is_error in (False, True):
                found = self.find_result(call, result_file_id(batch, is_error=is_error))
                if found:
                    data.append(await _shown_result(call, *found))
        page, has_more = call.page([file["id"] for file in data], 10_000, 10_000)
        return call.json(_listed(data[page], has_more=has_more))

    async def show_file(self, call: BatchCall) -> web.StreamResponse:
        """Return a file's object."""
        file = call.desk.file(self.house.name, call.ident)
        if file:
            return call.json(self.shown_file(call, file))
        result = self.find_result(call, call.ident)
        return call.json(await _shown_result(call, *result)) if result else _no_file(call)

    async def delete_file(self, call: BatchCall) -> web.StreamResponse:
        """Delete a file; batches made from it go on."""
        if not call.desk.file(self.house.name, call.ident) and not self.find_result(call, call.ident):
            return _no_file(call)
        call.desk.delete_file(call.ident)
        return call.json({"id": call.ident, "object": "file", "deleted": True})

    async def content(self, call: BatchCall) -> web.StreamResponse:
        """Stream a file as it is."""
        file = call.desk.file(self.house.name, call.ident)
        if file:
            return await call.stored(file, "application/octet-stream")
        result = self.find_result(call, call.ident)
        if result is None:
            return _no_file(call)
        return await call.results(*result, "application/octet-stream")

    def find_result(self, call: BatchCall, file_id: str) -> tuple[Batch, Part] | None:
        """Return whose results a file id stands for, and which part; None where there is no such file (yet)."""
        batch = call.desk.batch(self.house.name, f"batch_{file_id[5:-2]}")
        part = {"-o": Part.OUTPUT, "-e": Part.ERROR}.get(file_id[-2:])
        if batch is None or part is None or file_id in call.desk.deleted_files:
            return None
        view = call.desk.view(batch)
        has_it = view.has_output if part is Part.OUTPUT else view.has_error or self.has_empty_error_files
        return (batch, part) if view.has_ended and has_it else None

    #: A batch without errors has an error file of no bytes (Azure).
    has_empty_error_files = False


def result_file_id(batch: Batch, *, is_error: bool) -> str:
    """Return the id of a batch's output or error file."""
    return f"file-{batch.id.removeprefix('batch_')}{'-e' if is_error else '-o'}"


async def _read_form(request: web.BaseRequest) -> tuple[Spool | None, str, dict[str, str]]:
    """Return the file (None: there was none), its name, and the other fields."""
    spool, name, fields = None, "", dict[str, str]()
    form = await request.multipart()
    while (part := await form.next()) is not None:
        if not isinstance(part, BodyPartReader):
            continue
        if part.name == "file":
            spool, name = Spool(), unquote(part.filename or "upload")
            while chunk := await part.read_chunk(_CHUNK):
                spool.write(chunk)
        elif part.name:
            fields[part.name] = bytes(await part.read())[:_LONGEST_FIELD].decode(errors="replace")
    return spool, name, fields


def _file_object(file_id: str, size: int, created_s: float, name: str, purpose: str) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": int(created_s),
        "filename": name,
        "purpose": purpose,
    }


async def _shown_result(call: BatchCall, batch: Batch, part: Part) -> dict[str, Any]:
    """Return the object of a result file; its size is known by making it."""
    size = 0
    for number, line in enumerate(call.desk.results(batch, part)):
        size += len(line)
        if number % _TURN == 0:
            await asyncio.sleep(0)
    file_id = result_file_id(batch, is_error=part is Part.ERROR)
    ended_s = max(call.desk.view(batch).times.values())
    name = f"{batch.id}_{part}.jsonl"
    return {**_file_object(file_id, size, ended_s, name, "batch_output"), "expires_at": None, "status": "processed"}


def _listed(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    ids = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, **ids, "has_more": has_more}


def _no_file(call: BatchCall) -> web.Response:
    return call.refuse(Problem.NO_SUCH_THING, f"No such File object: {call.ident}")
