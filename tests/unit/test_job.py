"""The job file: what is read, what overrides it, and what every mistake is told."""

import pytest

from pipelines.job import load_job
from tests.unit.job_builders import JOB, load, refusal
from transforms.records.errors import ConfigError

__all__ = ["load", "refusal"]


def test_a_job_is_read(load, tmp_path):
    """Values arrive typed; yes and no, and dates, stay text."""
    loaded = load()
    job = loaded.job
    assert job.answer.json_schema["properties"]["label"]["enum"] == ["yes", "no"]
    assert job.model.api_version == "2023-06-01"
    assert (job.pool.timeout, job.pool.deadline, job.pool.give_up_after) == (90.0, 900.0, 0.5)
    assert job.pool.max_in_flight == 500
    assert (loaded.path, loaded.folder) == (str(tmp_path / "job.yaml"), str(tmp_path))


def test_relative_paths_start_at_the_job_file(load, tmp_path):
    """Paths are absolute after loading, whatever the current folder; absolute ones stay."""
    for name in ("system.txt", "template.txt", "labels.yaml"):
        (tmp_path / name).write_text("x")
    job = load(
        """
        name: j
        input: {path: [a/*.csv, /data/b.csv]}
        output: ../out
        prompt: {system_file: system.txt, template_file: template.txt, lookup: {labels: labels.yaml}}
        answer: {field: x}
        model: {provider: llama_cpp, name: m, gguf: m.gguf}
        """
    ).job
    assert job.input.path == [str(tmp_path / "a/*.csv"), "/data/b.csv"]
    assert job.output == str(tmp_path.parent / "out")
    assert job.prompt.template_file == str(tmp_path / "template.txt")
    assert job.prompt.lookup == {"labels": str(tmp_path / "labels.yaml")}
    assert job.model.gguf == str(tmp_path / "m.gguf")


def test_a_missing_prompt_file_is_named(refusal):
    """A template that is not there is found before launch."""
    text = JOB.replace('template: "Review: {{ row.text }}"', "template_file: nope.txt")
    assert refusal(text).startswith('job.yaml: prompt.template_file: no file "nope.txt" in ')


def test_the_file_yields_to_the_environment_and_both_to_set(load):
    """Precedence: file, environment, --set."""
    assert load(JOB, ROWBEAM_POOL__MAX_IN_FLIGHT="7").job.pool.max_in_flight == 7
    assert load(JOB, "pool.max_in_flight=8", ROWBEAM_POOL__MAX_IN_FLIGHT="7").job.pool.max_in_flight == 8
    assert load(JOB, "pool.max_in_flight=8", "pool.max_in_flight=9").job.pool.max_in_flight == 9


@pytest.mark.parametrize(
    ("override", "value"),
    [
        pytest.param("prompt.system=Hello: world # all", "Hello: world # all", id="text with YAML signs"),
        pytest.param("prompt.system={{ row.text }}", "{{ row.text }}", id="template"),
        pytest.param('prompt.system="7"', "7", id="quoted"),
        pytest.param("prompt.system=", None, id="empty is null"),
        pytest.param("prompt.system=null", None, id="null"),
        pytest.param("prompt.system=a=b", "a=b", id="equals sign"),
    ],
)
def test_set_takes_text_as_it_is(load, override, value):
    """A value is a scalar unless it begins like a list or a mapping."""
    assert load(JOB, override).job.prompt.system == value


def test_set_takes_lists_mappings_and_new_branches(load):
    """Flow YAML, and keys below a part the file does not have."""
    job = load(
        JOB,
        "input.key=[id, lang]",
        "input.types={Rating: float}",
        "audit.redact=[text]",
        "limits.max_dead_letter_ratio=1",
    ).job
    assert job.input.key == ["id", "lang"]
    assert job.input.types == {"Rating": "float"}
    assert job.audit.redact == ["text"]
    assert job.limits.max_dead_letter_ratio == 1.0


def test_the_environment_keeps_the_case_of_free_names(load):
    """Keys of the job are lower case; a column's name is what it is."""
    assert load(JOB, ROWBEAM_INPUT__TYPES__Rating="float", OTHER="x").job.input.types == {"Rating": "float"}


@pytest.mark.parametrize(
    ("overrides", "environ", "sentence"),
    [
        pytest.param(["batching.group_sise=5"], {}, "--set batching.group_sise: unknown key; did you mean group_size?", id="set"),
        pytest.param([], {"ROWBEAM_POOL__TIMEOUTS": "5"}, "ROWBEAM_POOL__TIMEOUTS pool.timeouts: unknown key; did you mean timeout?",
                     id="environment"),
        pytest.param(["pool.max_in_flight=0"], {}, "--set pool.max_in_flight: 0 is not allowed; give a number at least 1", id="value"),
        pytest.param(["pool"], {}, "--set: write --set key.path=value, such as --set pool.timeout=30s", id="no value"),
        pytest.param(["name.x=1"], {}, "--set name.x: name holds a value, not keys; set name as a whole", id="below a value"),
        pytest.param(["input.key=[a"], {}, "--set input.key: the value is not valid YAML: line 1, column 3: expected ',' or ']', "
                     "but got '<stream end>'", id="broken list"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_named(refusal, overrides, environ, sentence):
    """The line says which override is wrong."""
    assert refusal(JOB, *overrides, **environ) == sentence


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        pytest.param("pool:", "batching: {group_sise: 5}\npool:", "job.yaml: batching.group_sise: unknown key; did you mean group_size?",
                     id="slip"),
        pytest.param("pool:", "template: x\npool:", "job.yaml: template: unknown key; did you mean prompt.template?", id="wrong level"),
        pytest.param("pool:", "limits: {zzz: 1}\npool:", "job.yaml: limits.zzz: unknown key; there are: max_dead_letter_ratio",
                     id="unknown"),
        pytest.param("pool:", "budget: {max_usd: 0}\npool:", "job.yaml: budget.max_usd: 0 is not allowed; give a number greater than 0",
                     id="no budget at all"),
        pytest.param("pool:", "sinks: {enriched: bigquery, bigquery: {dataset: d}}\npool:",
                     'job.yaml: sinks.bigquery.dataset: "d" is not allowed; write project.dataset', id="no project"),
        pytest.param("pool:", "sinks: {enriched: bigquery, bigquery: {data: p.d}}\npool:",
                     "job.yaml: sinks.bigquery.dataset: is missing; add it\n"
                     "job.yaml: sinks.bigquery.data: unknown key; did you mean dataset?", id="unknown below an optional part"),
        pytest.param("pool:", "sinks: {enriched: bigquery}\npool:",
                     "job.yaml: sinks: needs bigquery.dataset exactly when enriched or audit is bigquery", id="no dataset"),
        pytest.param("pool:", "batching: {mode: fast}\npool:",
                     "job.yaml: batching.mode: \"fast\" is not allowed; use 'per_request', 'serial_bundle', "
                     "'provider_batch_api' or 'auto'", id="not one of"),
        pytest.param("path: reviews.csv", "path: s3://b/x.csv",
                     "job.yaml: input.path: \"s3://b/x.csv\" is in a store that can't be read or written; name a local path, "
                     "or a gs:// one",
                     id="remote input"),
        pytest.param("output: out/reviews", "output: s3://b/x",
                     "job.yaml: output: \"s3://b/x\" is in a store that can't be read or written; name a local path, "
                     "or a gs:// one", id="remote output"),
        pytest.param("path: reviews.csv", "bigquery: {table: t, bytes: 1}",
                     'job.yaml: input.bigquery.table: "t" is not allowed; write project.dataset.table\n'
                     "job.yaml: input.bigquery.bytes: unknown key; there are: table, query, project, location, max_bytes_billed", id="two mistakes"),
        pytest.param("path: reviews.csv", "header: true", "job.yaml: input: needs a path, or bigquery with a table or a query "
                     "(exactly one of the two)", id="no input"),
        pytest.param("key: [id]", "key: id", 'job.yaml: input.key: "id" is not allowed; write a list: [id]', id="no list"),
        pytest.param("key: [id]", "key: [1]", 'job.yaml: input.key.0: 1 is not allowed; write text: "1"', id="number for text"),
        pytest.param("path: reviews.csv", "path: 5", 'job.yaml: input.path: 5 is not allowed; write text: "5"', id="union"),
        pytest.param("name: review-sentiment", "name: a b",
                     'job.yaml: name: "a b" is not allowed; use letters, digits, dot, _ and -, at most 100, '
                     "beginning with a letter or digit", id="name"),
        pytest.param("field: sentiment", "field: 1x",
                     'job.yaml: answer.field: "1x" is not allowed; use letters, digits and _, not beginning with a digit', id="field"),
        pytest.param("timeout: 90s", "timeout: soon",
                     'job.yaml: pool.timeout: "soon" is no duration; write seconds, or a number with its unit, such as '
                     "500ms, 60s, 15m, 24h", id="duration"),
        pytest.param("timeout: 90s", "timeout: 0s", 'job.yaml: pool.timeout: "0s" is not allowed; give a number greater than 0',
                     id="no time"),
        pytest.param("max_output_tokens: 64", "max_output_tokens: many",
                     'job.yaml: model.params.max_output_tokens: "many" is not allowed; it should be a valid integer, '
                     "unable to parse string as an integer", id="no number"),
        pytest.param("  params: {max_output_tokens: 64}", "  params: 5",
                     "job.yaml: model.params: 5 is not allowed; write keys and values below it", id="no mapping"),
        pytest.param("  system: You", "  template_file: x\n  system: You",
                     "job.yaml: prompt: give exactly one of template and template_file", id="two templates"),
        pytest.param("key: [id]", "header: false",
                     "job.yaml: input: needs columns exactly when header is false: the columns' names, in order", id="no header"),
        pytest.param("key: [id]", "header: false, columns: [a, a]", "job.yaml: input: has a name twice in columns", id="columns twice"),
        pytest.param("key: [id]", "delimiter: '\"'",
                     "job.yaml: input: has a delimiter that can't be one; use a comma, a semicolon, a tab or the like", id="delimiter"),
        pytest.param("output: out/reviews\n", "", "job.yaml: output: is missing; add it", id="missing"),
        pytest.param("output: out/reviews", "output: ''", "job.yaml: output: is empty; name the folder for the results, such as out",
                     id="empty output"),
        pytest.param("name: gpt-4o-mini-2024-07-18", "name: ' '", "job.yaml: model.name: is empty; name the model", id="empty model"),
        pytest.param("pool:", "audit: {redact: [text, id]}\npool:",
                     'job.yaml: audit.redact: the column "id" is in input.key too, and rows go by their key in all outputs, so it '
                     "would show; take it out of one of the two", id="redacted key"),
    ],
)  # fmt: skip
def test_every_mistake_is_one_line(refusal, old, new, sentence):
    """The line names the key's path, the value, what is allowed, and the cure."""
    assert old in JOB
    assert refusal(JOB.replace(old, new)) == sentence


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("api_version: 2023-06-01", "api_key_env: sk-abcdefghij123", id="value"),
        pytest.param("api_version: 2023-06-01", "api_key: abcdefghij123", id="key"),
        pytest.param("api_version: 2023-06-01", "headers: {Authorization: Bearer abcdefghij123}", id="header"),
        pytest.param("api_version: 2023-06-01", "headers: {x: Bearer sk-abcdefghij123}", id="bearer"),
        pytest.param("api_version: 2023-06-01", "base_url: https://me:abcdefghij123@host/v1", id="login in an address"),
        pytest.param("system: You", "system: sk-abcdefghij123\n  system_file: You", id="before any other mistake"),
    ],
)
def test_a_secret_is_refused_and_not_shown(refusal, old, new):
    """The line says where secrets belong, and does not repeat them."""
    sentence = refusal(JOB.replace(old, new).replace("You label customer reviews.", "x"))
    assert "api_key_env" in sentence
    assert "abcdefghij123" not in sentence
    assert "\n" not in sentence


def test_a_column_may_be_called_like_a_secret(load):
    """Names of columns are the user's."""
    assert load(JOB, "input.types={api_key: string}").job.input.types == {"api_key": "string"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(b"name: [a\noutput: x", "job.yaml: line 2, column 7: ", id="syntax"),
        pytest.param(b"name: a\npool:\n  timeout: 5\n  timeout: 6\n",
                     'job.yaml: line 4, column 3: the key "timeout" is there twice (first on line 3); remove one', id="key twice"),
        pytest.param(b"name: a\n? [x]\n: y\n", "a key must be plain text", id="no plain key"),
        pytest.param(b"name: \xff", "byte 7 is not UTF-8", id="not UTF-8"),
        pytest.param(b"name: a\0", "job.yaml: ", id="control character"),
        pytest.param(b"", "job.yaml: is empty", id="empty"),
        pytest.param(b"name: a\nanswer: &x {schema: *x}\n", "job.yaml: an alias (*) stands inside its own anchor", id="loop"),
        pytest.param(b"name: &x [[*x]]\n", "job.yaml: an alias (*) stands inside its own anchor", id="loop of lists"),
        pytest.param(b"- a\n", "is not a mapping", id="list"),
        pytest.param(b"a: !!python/object:os.system x", "could not determine a constructor", id="unsafe tag"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml_mapping_says_where(refusal, text, words):
    """Line and column, in the words of the file."""
    assert words in refusal(text)


def test_an_alias_may_be_used_often(load, refusal):
    """Only one that holds itself is refused, also in an override."""
    schema = "{type: object, properties: {a: &t {type: string}, b: *t, c: {items: *t}}}"
    assert load(JOB, f"answer.schema={schema}").job.answer.json_schema["properties"]["b"] == {"type": "string"}
    assert "an alias (*)" in refusal(JOB, "input.key=[&a [*a]]")


def test_a_missing_job_file_is_named(tmp_path):
    """The path is the cure."""
    with pytest.raises(ConfigError, match="can't read the job file: No such file"):
        load_job(str(tmp_path / "no.yaml"), (), {})


def test_the_hash_is_of_what_runs(load, tmp_path):
    """It changes with any setting, however set, and with nothing else, such as the folder or a comment."""
    first = load().sha256
    assert load("# a comment\n" + JOB).sha256 == first
    assert load(JOB, "pool.timeout=90").sha256 == first
    assert load(JOB, "pool.timeout=91").sha256 != first
    assert load(JOB, f"model.params.seed={2**60}").sha256 != load(JOB, f"model.params.seed={2**60 + 1}").sha256
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "job2.yaml").write_text(JOB)
    assert load_job(str(other / "job2.yaml"), (), {}).sha256 == first
