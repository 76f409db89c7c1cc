"""Azure OpenAI's files and batches, below the dated and the v1 URLs: what differs from OpenAI (providers.md 3.3, 3.4)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from pipelines.sandbox.batch_clock import BatchStatus
from pipelines.sandbox.batch_engine import Batch, BatchView, StoredFile
from pipelines.sandbox.batch_files import result_file_id
from pipelines.sandbox.batch_http import BatchCall
from pipelines.sandbox.batch_openai import BatchEndpoints, OpenAIDialect, read_line, result_line
from pipelines.sandbox.batch_rows import Order, RowAsked, RowProblem, RowResult
from pipelines.sandbox.batch_spool import Spool
from pipelines.sandbox.exchange import Problem, Refused
from pipelines.sandbox.provider_azure import Azure
from pipelines.sandbox.provider_openai import error
from pipelines.sandbox.routes import find_route

#: The urls a line may have, and what they become below /openai/v1 in real time.
_URLS = {
    "/chat/completions": "/chat/completions",
    "/v1/chat/completions": "/chat/completions",
    "/responses": "/responses",
    "/v1/responses": "/responses",
}
_MOST_ROWS = 100_000
_BOM = b"\xef\xbb\xbf"


class AzureDialect(OpenAIDialect):
    """Azure's request and result lines.

    The real-time path of a line is below the same family of URLs as the batch: a job that uses one family and the same
    deployment for both has equal request hashes. (With two deployments the bodies differ, and so do the hashes.)

    Args:
        is_dated: the URL family that needs `?api-version=`.
    """

    provider = "azure_openai"
    expires = False

    def __init__(self, *, is_dated: bool) -> None:
        self._is_dated = is_dated

    def read_row(self, line: bytes, order: Order) -> RowAsked | RowProblem:
        """Read `{custom_id, method, url, body}`; all urls must be that of the first line, the endpoint counts nothing."""
        if line.startswith(_BOM):
            text = "A valid model deployment name couldn't be extracted from the input file."
            return RowProblem("model_not_found", text)
        row = read_line(line)
        if isinstance(row, RowProblem):
            return row
        if row["url"] not in _URLS or row["url"] != order.extra["url"]:
            return RowProblem(
                "url_mismatch", f"The URL '{row['url']}' is not supported or not that of the other lines."
            )
        path = self._path(_URLS[row["url"]], row["body"])
        route = find_route("POST", path, has_anthropic_version=False)
        return RowAsked(row["custom_id"], route, path, row["body"], order.extra["query"])

    def _path(self, tail: str, body: Mapping[str, Any]) -> str:
        if not self._is_dated:
            return f"/openai/v1{tail}"
        # Of the dated URLs only chat is below the deployment.
        return f"/openai/deployments/{body.get('model')}{tail}" if tail == "/chat/completions" else f"/openai{tail}"

    def row_problem(self, refused: Refused) -> RowProblem:
        """Put a 400 or 404 of real time into the errors of a failed job."""
        if refused.problem is Problem.NO_SUCH_MODEL:
            return RowProblem("model_not_found", "The deployment of the line does not exist or is not for batches.")
        return RowProblem("invalid_request", refused.message, refused.param)

    def write_row(self, result: RowResult, order: Order) -> bytes:  # noqa: ARG002 - the protocol's
        """Return the line of an output or error file, which has no id of its own."""
        return orjson.dumps(result_line(result))


class AzureEndpoints(BatchEndpoints):
    """Azure's endpoints of one URL family.

    Args:
        is_dated: replies to a create look like the REST samples: a capital first letter, an ISO time, no counts.
    """

    expiry_bounds_s = (1_209_600, 2_592_000)
    has_empty_error_files = True

    def __init__(self, *, is_dated: bool) -> None:
        super().__init__(Azure(is_dated=is_dated), AzureDialect(is_dated=is_dated))
        self._is_dated = is_dated

    def file_state(self, call: BatchCall, file: StoredFile) -> str:
        """Return pending for as long as a batch is validated, then processed."""
        is_done = call.desk.clock() >= file.created_s + call.desk.timing.validating_s
        return "processed" if is_done else "pending"

    def knows_endpoint(self, endpoint: str) -> bool:
        """Take any: the service looks at the lines."""
        return bool(endpoint)

    async def accept(self, call: BatchCall, body: Mapping[str, Any]) -> Batch | web.Response:
        """Accept the batch, if the file is there and processed, and the queue has room where that is asked first."""
        file = call.desk.file(self.dialect.provider, body["input_file_id"])
        if file is None or self.file_state(call, file) != "processed":
            text = "The requested file does not exist." if file is None else "The file is not yet processed."
            return call.json({"error": {"code": "invalidPayload", "message": text}}, 400)
        if call.desk.faults.plan.fail_fast:
            problem = await call.desk.preview(self.dialect, file.spool, self.order(call, body, file.spool))
            if problem:
                return call.json(error(400, problem.message, None, None, problem.code)[1], 400)
        return await super().accept(call, body)

    def order(self, call: BatchCall, body: Mapping[str, Any], spool: Spool) -> Order:
        """Return the create's body in the engine's terms, with the first line's url."""
        _, first = next(spool.lines(), (0, b""))
        row = read_line(first)
        return Order(
            endpoint=body["endpoint"],
            metadata=body.get("metadata"),
            input_file_id=body["input_file_id"],
            most_rows=_MOST_ROWS,
            extra={"url": "" if isinstance(row, RowProblem) else row["url"], "query": call.query},
        )

    def created(self, call: BatchCall, batch: Batch) -> dict[str, Any]:
        """Return the reply to a create."""
        shown = super().created(call, batch)
        if self._is_dated:
            shown["status"] = str(shown["status"]).capitalize()
            shown["created_at"] = datetime.fromtimestamp(int(batch.created_s), UTC).isoformat()
            shown["endpoint"] = shown["request_counts"] = None
        return shown

    def shown(self, batch: Batch, view: BatchView, word: str) -> dict[str, Any]:
        """Return the batch object: absent file ids are empty strings, and a finished job always has an error file."""
        shown = super().shown(batch, view, word)
        if view.status is BatchStatus.COMPLETED:
            shown["error_file_id"] = result_file_id(batch, is_error=True)
        for name in ("output_file_id", "error_file_id"):
            shown[name] = shown[name] or ""
        return shown

    def errors(self, batch: Batch) -> dict[str, Any]:
        """Return why a job failed; the dated API writes line numbers as strings."""
        errors = super().errors(batch)
        if self._is_dated:
            for problem in errors["data"]:
                problem["line"] = None if problem["line"] is None else str(problem["line"])
        return errors


ROUTES = (
    *AzureEndpoints(is_dated=False).routes("/openai/v1"),
    *AzureEndpoints(is_dated=True).routes("/openai"),
)
