"""BigQuery as the rest of storage needs it: tables, and jobs that are begun once however often they are asked for.

Google's library comes with the extra `gcp` and is loaded at the first use. Credentials are the machine's own
(application default credentials); `BIGQUERY_EMULATOR_HOST` names a stand-in that wants none. Every failure leaves as
a WarehouseError, whose text says what happened and what to do.

Source: https://cloud.google.com/bigquery/docs/running-jobs#generate-jobid and
https://cloud.google.com/bigquery/docs/error-messages.
"""

import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

from transforms.records.errors import ConfigError
from transforms.storage.bigquery_schema import Column

_EMULATOR = "BIGQUERY_EMULATOR_HOST"
_PROJECT = "GOOGLE_CLOUD_PROJECT"
_RETRY_S = 60.0
_TRIES = 6
_FIRST_WAIT_S = 2.0
_CLIENT_WORDS = 300
#: Reasons of a failed job that another job, later, may not have.
_PASSING = frozenset({"backendError", "internalError", "rateLimitExceeded", "jobBackendError", "jobInternalError"})
_CONCURRENT = ("concurrent update", "could not serialize access", "concurrent transaction")


class WarehouseError(OSError):
    """BigQuery can't be reached or refuses; the text says what, and what to do.

    Attributes:
        reason: BigQuery's own word for it, such as "invalid"; "" where there is none.
    """

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason


def library() -> Any:
    """Return the module google.cloud.bigquery.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("google.cloud.bigquery")
    except ImportError as error:
        raise ConfigError("BigQuery needs Google's library; run: pip install 'rowbeam[gcp]'") from error


def client(project: str | None, location: str | None) -> Any:
    """Return this process's client; a fork gets its own.

    Args:
        project: pays for the jobs; None: the credentials' own.
        location: where jobs run; None: where the tables are that they name.

    Raises:
        ConfigError: the library is missing, or nothing names a project.
        WarehouseError: there are no credentials.
    """
    return _client_of(os.getpid(), os.environ.get(_EMULATOR), project or os.environ.get(_PROJECT), location)


@lru_cache(maxsize=4)
def _client_of(_pid: int, emulator: str | None, project: str | None, location: str | None) -> Any:
    bigquery = library()
    if emulator:
        from google.auth.credentials import AnonymousCredentials

        nobody = cast(Callable[[], Any], AnonymousCredentials)()
        return bigquery.Client(project=project or "local", credentials=nobody, location=location)
    with said("BigQuery"):
        try:
            return bigquery.Client(project=project, location=location)
        except OSError as error:
            raise ConfigError(f"BigQuery: no project is known; set the variable {_PROJECT} ({error})") from error


def retry() -> Any:
    """Return the library's own back-off, for at most a minute: a service that is away longer is told of."""
    return importlib.import_module("google.cloud.bigquery.retry").DEFAULT_RETRY.with_timeout(_RETRY_S)


def find_table(service: Any, name: str) -> dict[str, Any] | None:
    """Return a table in BigQuery's REST form, or None where there is none of this name (`project.dataset.table`)."""
    from google.api_core.exceptions import NotFound

    with said(name):
        try:
            return cast(dict[str, Any], service.get_table(name, retry=retry()).to_api_repr())
        except NotFound:
            return None


def create_table(service: Any, name: str, columns: list[Column], **others: Any) -> dict[str, Any]:
    """Create a table unless it is there, and return it as it is.

    Args:
        service: the client.
        name: project.dataset.table.
        columns: its columns.
        others: further keys of BigQuery's REST form, such as timePartitioning.
    """
    project, dataset, table = name.rsplit(".", 2)
    place = {"projectId": project, "datasetId": dataset, "tableId": table}
    whole = library().Table.from_api_repr({"tableReference": place, "schema": {"fields": columns}, **others})
    with said(name):
        return cast(dict[str, Any], service.create_table(whole, exists_ok=True, retry=retry()).to_api_repr())


def set_columns(service: Any, table: dict[str, Any], columns: list[Column]) -> None:
    """Give a table more columns."""
    whole = library().Table.from_api_repr(table | {"schema": {"fields": columns}})
    with said(whole.table_id):
        service.update_table(whole, ["schema"], retry=retry())


def drop_table(service: Any, name: str) -> None:
    """Delete a table; does nothing when there is none."""
    with said(name):
        service.delete_table(name, not_found_ok=True, retry=retry())


def run_once(service: Any, job_id: str, begin: Callable[[str], Any], wait: Callable[[float], None] = time.sleep) -> Any:
    """Begin a job unless it was begun before, by whichever process, and return it when it is done.

    A job of this id that failed in another process is begun anew under the id's next number; one that fails here is,
    too, where the reason may pass (a busy service, another writer of the table).

    Args:
        service: the client.
        job_id: the job's; `<id>_1`, `<id>_2` ... are its numbers.
        begin: begins the job of a given id.
        wait: sleeps.

    Raises:
        WarehouseError: the job failed.
    """
    from google.api_core.exceptions import Conflict, GoogleAPICallError, RetryError
    from requests.exceptions import RequestException

    for number in range(_TRIES):
        name = f"{job_id}_{number}" if number else job_id
        is_found, is_last = False, number == _TRIES - 1
        with said(name):
            try:
                try:
                    job = begin(name)
                except Conflict:
                    is_found = True
                    job = service.get_job(name, retry=retry())
                except (GoogleAPICallError, RetryError, RequestException):  # begun or not: the reply was lost
                    job = _job_if_any(service, name)
                    if job is None:
                        raise
                job.result(retry=retry())
            except GoogleAPICallError as error:
                if is_last or not (is_found or _is_passing(error)):
                    raise
                if not is_found:
                    wait(_FIRST_WAIT_S * 2**number)
            else:
                return job
    raise WarehouseError(f"{job_id}: was begun {_TRIES} times and always failed")  # pragma: no cover - the last raises


def is_done(service: Any, job_id: str) -> bool:
    """Whether a job of this id, or of one of its numbers, has ended well."""
    for number in range(_TRIES):
        with said(job_id):
            job = _job_if_any(service, f"{job_id}_{number}" if number else job_id)
        if job is None:
            return False
        if job.state == "DONE" and job.error_result is None:
            return True
    return False


def _job_if_any(service: Any, job_id: str) -> Any:
    from google.api_core.exceptions import NotFound

    try:
        return service.get_job(job_id, retry=retry())
    except NotFound:
        return None


@contextmanager
def said(what: str) -> Iterator[None]:
    """Turn what the library raises into a WarehouseError.

    Args:
        what: the table or job it is about.
    """
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except GoogleAPICallError as error:
        raise WarehouseError(f"{what}: {_words(error)}", _reason(error)) from error
    except GoogleAuthError as error:
        cure = "run `gcloud auth application-default login`, or start this where a service account is attached"
        raise WarehouseError(f"{what}: no credentials for BigQuery; {cure} ({_short(str(error))})") from error
    except (RetryError, RequestException) as error:
        raise WarehouseError(
            f"{what}: BigQuery can't be reached ({type(error).__name__}: {_short(str(error))}); try again"
        ) from error


def _words(error: Any) -> str:
    text = _short(str(error.message))
    if error.code in (401, 403):
        roles = "roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the project"
        return f"BigQuery refuses ({error.code}: {text}); grant this account {roles}"
    return f"BigQuery answered {error.code}: {text}"


def _reason(error: Any) -> str:
    found = next((one for one in error.errors or () if isinstance(one, dict)), {})
    return str(found.get("reason", ""))


def _is_passing(error: Any) -> bool:
    text = str(error.message).lower()
    return _reason(error) in _PASSING or error.code >= 500 or any(words in text for words in _CONCURRENT)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CLIENT_WORDS else line[:_CLIENT_WORDS] + "..."


def dataset_location(service: Any, name: str) -> str:
    """Return where a dataset is (`project.dataset`).

    Raises:
        ConfigError: there is no such dataset.
        WarehouseError: it can't be looked at.
    """
    from google.api_core.exceptions import NotFound

    with said(name):
        try:
            return str(service.get_dataset(name, retry=retry()).location)
        except NotFound as error:
            raise ConfigError(
                f"sinks.bigquery.dataset: there is no dataset {name}; make it where its data should be, such as: "
                f"bq mk --location=EU --dataset {':'.join(name.rsplit('.', 1))}"
            ) from error
