"""What tests of job files share: a job, its settings, and what is said of a wrong one."""

import textwrap

import pytest

from pipelines.job import load_job
from transforms.records.errors import ConfigError

JOB = """
name: review-sentiment
input: {path: reviews.csv, key: [id]}
output: out/reviews
prompt:
  system: You label customer reviews.
  template: "Review: {{ row.text }}"
answer:
  field: sentiment
  schema: {type: object, properties: {label: {enum: [yes, no]}}, required: [label]}
model:
  provider: openai
  name: gpt-4o-mini-2024-07-18
  api_version: 2023-06-01
  params: {max_output_tokens: 64}
pool: {timeout: 90s, deadline: 15m, give_up_after: 500ms}
"""


@pytest.fixture
def load(tmp_path):
    """Give a function that writes a job file and loads it."""

    def write_and_load(text=JOB, *overrides, **environ):
        path = tmp_path / "job.yaml"
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return load_job(str(path), overrides, environ)

    return write_and_load


@pytest.fixture
def refusal(load):
    """Give a function that loads a wrong job and returns the sentence."""

    def load_and_fail(text=JOB, *overrides, **environ):
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides, **environ)
        return str(caught.value)

    return load_and_fail
