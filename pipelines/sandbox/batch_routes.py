"""The batch endpoints of all providers: one line for each provider's part."""

from pipelines.sandbox.batch_anthropic import ROUTES as _ANTHROPIC
from pipelines.sandbox.batch_azure import ROUTES as _AZURE
from pipelines.sandbox.batch_http import BatchRoute
from pipelines.sandbox.batch_openai import ROUTES as _OPENAI
from pipelines.sandbox.batch_openrouter import ROUTES as _OPENROUTER

BATCH_ROUTES: tuple[BatchRoute, ...] = (
    *_OPENAI,
    *_AZURE,
    *_ANTHROPIC,
    *_OPENROUTER,
)
