"""Job files: the columns they name, and the schema of the answer."""

import pytest

from pipelines.job import check_columns, resolve_answer_schema
from tests.unit.job_builders import JOB, load, refusal
from transforms.records.errors import ConfigError

__all__ = ["load", "refusal"]


@pytest.mark.parametrize(
    ("override", "columns", "sentence"),
    [
        pytest.param("input.key=[idd]", ["id", "text"], 'j: input.key: the input has no column "idd"; did you mean id?', id="key"),
        pytest.param("input.types={x: float}", ["id", "text"], 'j: input.types: the input has no column "x"; there are: id, text',
                     id="types"),
        pytest.param("audit.redact=[txt]", ["id", "text"], 'j: audit.redact: the input has no column "txt"; did you mean text?',
                     id="redact"),
        pytest.param("answer.field=text", ["id", "text"],
                     'j: answer.field: "text" would write the column "text", which the input has already; choose another name',
                     id="field"),
        pytest.param("answer.field=x", ["id", "x_usage"],
                     'j: answer.field: "x" would write the column "x_usage", which the input has already; choose another name',
                     id="a column beside the field"),
    ],
)  # fmt: skip
def test_columns_the_job_names_must_exist(load, override, columns, sentence):
    """A missing column is found before launch."""
    with pytest.raises(ConfigError) as caught:
        check_columns(load(JOB, override).job, columns, "j")
    assert str(caught.value) == sentence
    check_columns(load().job, ["id", "text"], "j")


def test_the_error_column_clashes_only_where_it_is_written(load):
    """<field>_error exists with on_failure: keep alone."""
    check_columns(load().job, ["id", "text", "sentiment_error"], "j")
    with pytest.raises(ConfigError, match='"sentiment_error"'):
        check_columns(load(JOB, "on_failure=keep").job, ["id", "text", "sentiment_error"], "j")


def test_a_schema_is_given_as_written(load, tmp_path):
    """Plain text has none."""
    loaded = load()
    assert resolve_answer_schema(loaded.job, loaded.folder)["required"] == ["label"]
    assert resolve_answer_schema(load(JOB, "answer.schema=null").job, loaded.folder) is None


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        pytest.param("{type: objct}", "j: answer.schema.type: no valid JSON Schema", id="type"),
        pytest.param(
            "{properties: {a: {pattern: '('}}}", "j: answer.schema.properties.a.pattern: no valid", id="pattern"
        ),
        pytest.param("{$ref: 'https://x.invalid/s.json'}", "leaves the schema", id="outside reference"),
        pytest.param(
            "{anyOf: [{$ref: 'https://x.invalid/s.json'}]}", "leaves the schema", id="outside reference in a list"
        ),
        pytest.param("{$ref: '#/nope'}", "no valid JSON Schema", id="reference to nothing"),
    ],
)
def test_a_schema_must_be_one(load, schema, words):
    """The path inside the schema is named, and nothing is fetched."""
    loaded = load(JOB, f"answer.schema={schema}")
    with pytest.raises(ConfigError) as caught:
        resolve_answer_schema(loaded.job, loaded.folder, "j")
    assert words in str(caught.value)


def test_a_pydantic_model_beside_the_job_gives_its_schema(load, tmp_path):
    """The class is imported from the job's folder."""
    (tmp_path / "answers_beside.py").write_text(
        "from pydantic import BaseModel\nclass Review(BaseModel):\n    label: str\nclass Other: pass\n"
    )
    loaded = load(JOB, "answer.schema=null", "answer.python=answers_beside:Review")
    assert resolve_answer_schema(loaded.job, loaded.folder)["properties"]["label"]["type"] == "string"


@pytest.mark.parametrize(
    ("code", "name", "words"),
    [
        pytest.param("", "answers_a", 'write "package.module:Class"', id="no class"),
        pytest.param("", "answers_nowhere:X", "can't import answers_nowhere", id="no module"),
        pytest.param("import sys\nsys.exit(0)", "answers_f:X", "ends the program", id="module exits"),
        pytest.param("raise BaseException('odd')", "answers_g:X", "odd", id="module raises anything"),
        pytest.param("1/0", "answers_b:X", "division by zero", id="module fails"),
        pytest.param("", "answers_c:X", "has no such class", id="class is not there"),
        pytest.param("X = 5", "answers_d:X", "is no pydantic model", id="no model"),
        pytest.param(
            "from pydantic import BaseModel\nfrom typing import Callable\nclass X(BaseModel):\n    f: Callable",
            "answers_e:X",
            "has no JSON Schema",
            id="model without a schema",
        ),
    ],
)
def test_a_class_that_is_no_model_is_refused(load, tmp_path, code, name, words):
    """The line says what to write or to install."""
    module = name.partition(":")[0]
    if module != "answers_nowhere":
        (tmp_path / f"{module}.py").write_text(code)
    loaded = load(JOB, "answer.schema=null", f"answer.python={name}")
    with pytest.raises(ConfigError, match=r"^j: answer.python: ") as caught:
        resolve_answer_schema(loaded.job, loaded.folder, "j")
    assert words in str(caught.value)
