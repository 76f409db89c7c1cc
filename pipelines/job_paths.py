"""The paths of a job file: what it names relative to its own folder, made absolute; on a disk or in a bucket."""

import os
import posixpath
from pathlib import Path

from pipelines.job_errors import show
from transforms.records.errors import ConfigError
from transforms.records.settings import Job
from transforms.storage.objects import exists, is_remote, join


def with_absolute_paths(job: Job, folder: str, path: str) -> Job:
    """Return the job with all its paths absolute.

    Args:
        job: as its file says it.
        folder: the file's.
        path: the file, for errors.

    Raises:
        ConfigError: a file that must be there is not.
    """

    def absolute(name: str) -> str:
        if is_remote(name):
            return name
        if is_remote(folder):
            return join(folder, posixpath.normpath(name))
        return os.path.normpath(folder / Path(name).expanduser())

    def existing(key: str, name: str | None) -> str | None:
        if name is None:
            return None
        location = absolute(name)
        if not exists(location):
            raise ConfigError(f"{Path(path).name}: {key}: no file {show(name)} in {folder}; correct the path")
        return location

    def each(paths: str | list[str] | None) -> str | list[str] | None:
        return [absolute(one) for one in paths] if isinstance(paths, list) else paths and absolute(paths)

    prompt, model = job.prompt, job.model
    manifest = existing("model.manifest", model.manifest)
    gguf = absolute(model.gguf) if model.gguf is not None else None
    return job.model_copy(
        update={
            "input": job.input.model_copy(update={"path": each(job.input.path)}),
            "output": absolute(job.output),
            "prompt": prompt.model_copy(
                update={
                    "system_file": existing("prompt.system_file", prompt.system_file),
                    "template_file": existing("prompt.template_file", prompt.template_file),
                    "lookup": {key: existing(f"prompt.lookup.{key}", name) for key, name in prompt.lookup.items()},
                }
            ),
            "model": model.model_copy(update={"gguf": gguf, "manifest": manifest}),
        }
    )
