"""What a job may say of BigQuery: settings that fit, and one line for those that do not."""

import pytest
from pydantic import ValidationError

from pipelines.job_errors import model_at
from transforms.records.bigquery_settings import BigQueryInput, BigQuerySink, SinkSettings
from transforms.records.errors import ConfigError
from transforms.records.settings import InputSettings
from transforms.storage import bigquery_client
from transforms.storage.arrow_types import CALLS
from transforms.storage.bigquery_schema import (
    columns_of,
)

# -- what a job may say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "values", "words"),
    [
        pytest.param(InputSettings, {}, "needs a path, or bigquery", id="neither"),
        pytest.param(
            InputSettings, {"path": "x.csv", "bigquery": {"table": "p.d.t"}}, "exactly one of the two", id="both"
        ),
        pytest.param(
            InputSettings,
            {"bigquery": {"table": "p.d.t"}, "types": {"a": "integer"}},
            "has types, which is for files",
            id="types",
        ),
        pytest.param(BigQueryInput, {}, "exactly one of table and query", id="no source"),
        pytest.param(BigQueryInput, {"table": "d.t"}, "should match pattern", id="no project"),
        pytest.param(BigQueryInput, {"table": "p.d.t`; DROP"}, "should match pattern", id="quote"),
        pytest.param(BigQuerySink, {"dataset": "p.d.t"}, "should match pattern", id="a table for a dataset"),
        pytest.param(SinkSettings, {"enriched": "bigquery"}, "needs bigquery.dataset exactly when", id="no dataset"),
        pytest.param(
            SinkSettings, {"bigquery": {"dataset": "p.d"}}, "needs bigquery.dataset exactly when", id="no use"
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, values, words):
    """Before anything else is looked at."""
    with pytest.raises(ValidationError, match=words):
        settings.model_validate(values)


def test_settings_survive_their_own_json():
    """As a manifest keeps them, with every default written out."""
    for settings in (
        InputSettings(bigquery=BigQueryInput(query="SELECT 1"), key=["id"]),
        SinkSettings(enriched="bigquery", bigquery=BigQuerySink(dataset="domain.com:proj-1.ds")),
    ):
        assert type(settings).model_validate(settings.model_dump(mode="json")) == settings


def test_keys_below_an_optional_part_are_known():
    """So that a slip in them is answered with what was meant, and overrides find them."""
    assert model_at(("sinks", "bigquery")) is BigQuerySink
    assert model_at(("input", "bigquery")) is BigQueryInput


def test_a_missing_library_is_one_line(monkeypatch):
    """It says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "google.cloud.bigquery", None)
    with pytest.raises(ConfigError, match=r"run: pip install 'rowbeam\[gcp\]'"):
        bigquery_client.library()


def test_payloads_are_text_columns():
    """JSON or not: what a provider sent may be none."""
    columns = {column["name"]: column["type"] for column in columns_of(CALLS)}
    assert {columns[name] for name in ("request_json", "response_json", "error_json")} == {"STRING"}
