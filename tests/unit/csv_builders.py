"""What tests of CSV files share: a file written and read, its rows and its dead letters."""

from transforms.records.failure import DeadLetter
from transforms.records.row import RawRow
from transforms.records.settings import InputSettings
from transforms.storage.inputs import expand, input_schema, read_rows


def read(folder, data, name="x.csv", **options):
    """Write a file and read all of it."""
    path = folder / name
    path.write_bytes(data)
    job_input = InputSettings(path=str(path), **options)
    files = expand(job_input, str(folder))
    return list(read_rows(files[0], job_input, input_schema(files, job_input)))


def rows_of(results):
    """Give the values of the good rows."""
    return [list(row.values.values()) for row in results if isinstance(row, RawRow)]


def letters_of(results):
    """Give the dead letters."""
    return [row for row in results if isinstance(row, DeadLetter)]
