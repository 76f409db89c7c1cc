"""OpenAI's batches (providers.md 2.5); Azure's are the same but for what batch_azure.py says. Files: batch_files.py."""

import math
import re
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from pipelines.sandbox.batch_clock import BatchStatus
from pipelines.sandbox.batch_engine import Batch, BatchView
from pipelines.sandbox.batch_files import FileEndpoints, result_file_id
from pipelines.sandbox.batch_http import BatchCall, BatchRoute
from pipelines.sandbox.batch_rows import Dialect, Order, RowAsked, RowEnd, RowProblem, RowResult
from pipelines.sandbox.batch_spool import Spool
from pipelines.sandbox.exchange import House, Problem, Refused
from pipelines.sandbox.provider_openai import OpenAI, error
from pipelines.sandbox.routes import find_route

#: The endpoints that the sandbox answers in real time, and therefore in batches.
ENDPOINTS = ("/v1/chat/completions", "/v1/responses")
_MOST_ROWS = 50_000
_MOST_PAIRS, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512
_DAY_S = 86_400
_WORDS = {BatchStatus.REJECTED: "failed"}
_ENDINGS = {
    RowEnd.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    RowEnd.CANCELLED: ("batch_cancelled", "This request was cancelled before it was executed."),
}


class OpenAIDialect:
    """OpenAI's request and result lines."""

    provider = "openai"
    rejects_bad_rows = True
    expires = True
    one_model = True

    def read_row(self, line: bytes, order: Order) -> RowAsked | RowProblem:
        """Read `{custom_id, method, url, body}`; the url must be the batch's endpoint."""
        row = read_line(line)
        if isinstance(row, RowProblem):
            return row
        if row["url"] != order.endpoint:
            text = f"The URL provided for this request does not match the batch endpoint '{order.endpoint}'."
            return RowProblem("mismatched_endpoint", text, "url")
        return RowAsked(row["custom_id"], find_route("POST", row["url"], has_anthropic_version=False), row["url"], row["body"])  # fmt: skip

    def row_problem(self, refused: Refused) -> RowProblem:
        """Put a 400 or 404 of real time into the errors of a failed batch."""
        if refused.problem is Problem.NO_SUCH_MODEL:
            text = f"The provided model '{refused.model}' is not supported by the Batch API."
            return RowProblem("model_not_found", text, "body.model")
        return RowProblem(refused.code or "invalid_request", refused.message, f"body.{refused.param}" if refused.param else None)  # fmt: skip

    def write_row(self, result: RowResult, order: Order) -> bytes:  # noqa: ARG002 - the protocol's
        """Return the line of an output or error file."""
        return orjson.dumps({"id": f"batch_req_{result.id}", **result_line(result)})


class BatchEndpoints(FileEndpoints):
    """The batch endpoints of one provider.

    Args:
        house: words refusals.
        dialect: reads and writes rows.
    """

    def __init__(self, house: House, dialect: Dialect) -> None:
        super().__init__(house)
        self.dialect = dialect

    def routes(self, prefix: str) -> tuple[BatchRoute, ...]:
        """Return the endpoints of files and batches below a path such as /v1."""
        one = r"/batches/(?P<id>[^/]+)"
        table = (
            ("POST", "/batches", self.create, "create_begun"),
            ("GET", "/batches", self.list_batches, "listed"),
            ("GET", one, self.status, ""),
            ("POST", f"{one}/cancel", self.cancel, ""),
        )
        return (
            *self.file_routes(prefix),
            *(
                BatchRoute(method, re.compile(re.escape(prefix) + path), self.house, endpoint, event)
                for method, path, endpoint, event in table
            ),
        )

    async def create(self, call: BatchCall) -> web.StreamResponse:
        """Create a batch from an uploaded file."""
        raw = await call.request.read()
        try:
            body = orjson.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return call.refuse(Problem.INVALID, "We could not parse the JSON body of your request.")
        objection = self.objection(body)
        if objection:
            return call.refuse(Problem.INVALID, objection.message, objection.param, objection.code)

        async def accept() -> Batch | web.Response:
            return await self.accept(call, body)

        return await call.create(accept, lambda batch: self.created(call, batch))

    def objection(self, body: Mapping[str, Any]) -> RowProblem | None:
        """Return what is wrong with a create's body, or None."""
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str):
                return RowProblem("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
        if body["completion_window"] != "24h":
            text = f"Invalid value: '{body['completion_window']}'. Value must be '24h'."
            return RowProblem("invalid_value", text, "completion_window")
        if not self.knows_endpoint(body["endpoint"]):
            text = f"Invalid value: '{body['endpoint']}'. Supported values are: {', '.join(map(repr, ENDPOINTS))}."
            return RowProblem("invalid_value", text, "endpoint")
        if not _is_metadata(body.get("metadata")):
            text = "Invalid 'metadata': at most 16 pairs of strings, names up to 64 and values up to 512 characters."
            return RowProblem("invalid_value", text, "metadata")
        return None

    def knows_endpoint(self, endpoint: str) -> bool:
        """Tell whether a create may name this endpoint."""
        return endpoint in ENDPOINTS

    async def accept(self, call: BatchCall, body: Mapping[str, Any]) -> Batch | web.Response:
        """Accept the batch; a file id that is none is only noticed later (providers.md 2.5)."""
        file = call.desk.file(self.dialect.provider, body["input_file_id"])
        problem = None
        if file is None:
            problem = RowProblem("invalid_request", f"Cannot find file {body['input_file_id']}.", "input_file_id")
        spool = file.spool if file else Spool()
        return call.desk.accept(self.dialect, spool, self.order(call, body, spool), "batch_", problem)

    def order(self, call: BatchCall, body: Mapping[str, Any], spool: Spool) -> Order:  # noqa: ARG002 - for Azure
        """Return the create's body in the engine's terms."""
        return Order(
            endpoint=body["endpoint"],
            metadata=body.get("metadata"),
            input_file_id=body["input_file_id"],
            most_rows=_MOST_ROWS,
        )

    def created(self, call: BatchCall, batch: Batch) -> dict[str, Any]:
        """Return the reply to a create."""
        view = call.desk.view(batch)
        return self.shown(batch, view, self.word(view))

    def word(self, view: BatchView) -> str:
        """Return the provider's word for a status."""
        return _WORDS.get(view.status, str(view.status))

    async def status(self, call: BatchCall) -> web.StreamResponse:
        """Answer a status check."""
        batch = call.desk.batch(self.dialect.provider, call.ident)
        trouble = call.status_trouble(batch)
        if trouble or batch is None:
            return trouble or call.refuse(Problem.NO_SUCH_THING)
        view = call.desk.view(batch)
        word = call.status_word(self.word(view))
        call.note("status", batch_id=batch.id, status=word)
        return call.json(self.shown(batch, view, word))

    async def list_batches(self, call: BatchCall) -> web.StreamResponse:
        """Return a page of batches, newest first."""
        batches = call.desk.batches(self.dialect.provider)
        page, has_more = call.page([batch.id for batch in batches], 20, 100)
        data = []
        for batch in batches[page]:
            view = call.desk.view(batch)
            data.append(self.shown(batch, view, self.word(view)))
        ids = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return call.json({"object": "list", "data": data, **ids, "has_more": has_more})

    async def cancel(self, call: BatchCall) -> web.StreamResponse:
        """Cancel a batch; 409 when it has ended or is finalizing."""
        batch = call.desk.batch(self.dialect.provider, call.ident)
        if batch is None:
            return call.refuse(Problem.NO_SUCH_THING, f"No batch found with id '{call.ident}'.")
        is_cancelled = call.desk.cancel(batch)
        view = call.desk.view(batch)
        if not is_cancelled and view.status is not BatchStatus.CANCELLING:
            text = f"Cannot cancel a batch with status '{self.word(view)}'."
            return call.json(error(409, text, "invalid_request_error")[1], 409)
        return call.json(self.shown(batch, view, self.word(view)))

    def shown(self, batch: Batch, view: BatchView, word: str) -> dict[str, Any]:
        """Return the batch object."""
        absent = "" if batch.whims.plan.empty_string_ids else None
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.order.endpoint,
            "model": batch.model or None,
            "errors": self.errors(batch) if view.status is BatchStatus.REJECTED else None,
            "input_file_id": batch.order.input_file_id,
            "completion_window": "24h",
            "status": word,
            "output_file_id": result_file_id(batch, is_error=False) if view.has_output else absent,
            "error_file_id": result_file_id(batch, is_error=True) if view.has_error else absent,
            "created_at": int(batch.created_s),
            "expires_at": int(batch.created_s + _DAY_S if batch.expires_s == math.inf else batch.expires_s),
            **_times(view),
            "request_counts": {"total": view.total, "completed": view.completed, "failed": view.failed},
            "metadata": batch.order.metadata,
        }

    def errors(self, batch: Batch) -> dict[str, Any]:
        """Return why a batch was rejected."""
        data = [
            {"code": problem.code, "message": problem.message, "param": problem.param, "line": problem.line}
            for problem in batch.problems
        ]
        return {"object": "list", "data": data}


def read_line(line: bytes) -> dict[str, Any] | RowProblem:
    """Return a request line's object, its custom_id, method, url and body being there and of the right types."""
    try:
        row = orjson.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        return RowProblem("invalid_json_line", "This line is not parseable as valid JSON.")
    for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
        if not isinstance(row.get(name), kind) or not row[name]:
            return RowProblem("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    if row["method"] != "POST":
        return RowProblem("invalid_method", f"Invalid method '{row['method']}'. Only 'POST' is supported.", "method")
    return row


def result_line(result: RowResult) -> dict[str, Any]:
    """Return a result without the id that OpenAI's lines have and Azure's don't."""
    if result.end is not RowEnd.ANSWERED:
        code, message = _ENDINGS[result.end]
        return {"custom_id": result.custom_id, "response": None, "error": {"code": code, "message": message}}
    id_ = result.id
    request_id = f"{id_[:8]}-{id_[8:12]}-{id_[12:16]}-{id_[16:20]}-{id_[20:]}"
    response = {"status_code": result.status, "request_id": request_id, "body": result.body}
    return {"custom_id": result.custom_id, "response": response, "error": None}


def _is_metadata(metadata: Any) -> bool:
    if metadata is None:
        return True
    return (
        isinstance(metadata, dict)
        and len(metadata) <= _MOST_PAIRS
        and all(isinstance(value, str) and len(value) <= _LONGEST_VALUE for value in metadata.values())
        and all(len(name) <= _LONGEST_NAME for name in metadata)
    )


def _times(view: BatchView) -> dict[str, int | None]:
    statuses = [status for status in BatchStatus if status is not BatchStatus.VALIDATING]
    return {
        f"{_WORDS.get(status, status)}_at": int(view.times[status]) if status in view.times else None
        for status in statuses
    }


ROUTES = BatchEndpoints(OpenAI(), OpenAIDialect()).routes("/v1")
