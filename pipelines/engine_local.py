"""Beam's FnApiRunner with several workers on this machine, each a process of its own.

What Beam's own does wrong there (2.77): of several workers' answers only the metrics are kept, so that every element
that a splittable DoFn defers is lost, and with it the batches in flight; and a worker that dies is waited for for ever.
"""

import shlex
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.fn_api_runner.fn_runner import BundleManager, ParallelBundleManager
from apache_beam.runners.portability.fn_api_runner.worker_handlers import SubprocessSdkWorkerHandler, WorkerHandler
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker
from apache_beam.transforms.environments import Environment, SubprocessSDKEnvironment

from transforms.records.errors import InternalError

#: Not one of Beam's modes, for which it would put an environment of its own in the place of ours.
_OWN_PROCESSES = "own_processes"
_PROCESS_URN = "rowbeam:env:process:v1"
_DIED = "a worker process of this run died (it was killed, or this machine's memory was used up)"
_CURE = "answers so far are in the ledger: run the job again, with fewer --direct_num_workers if memory is short"
_LOOK_S = 0.2
#: How workers of the run in this process died.
_deaths: list[str] = []


class FnApiRunner(fn_runner.FnApiRunner):
    """FnApiRunner for `--direct_num_workers` above 1. It is named like Beam's, which it is in all but these points."""

    def __init__(self) -> None:
        super().__init__(default_environment=_ProcessEnvironment.from_command_string(command_string=_command()))

    def run_pipeline(self, pipeline: Any, options: PipelineOptions) -> Any:
        """Run with the workers in processes, unless threads were asked for."""
        direct = options.view_as(DirectOptions)
        if direct.direct_running_mode != "multi_threading":
            direct.direct_running_mode = _OWN_PROCESSES
        _deaths.clear()
        try:
            with _quiet_channels():
                return super().run_pipeline(pipeline, options)
        except Exception as error:
            # Whatever Beam meets then, such as a closed channel, is but the consequence.
            if _deaths:
                raise InternalError(f"{_DIED}: {_deaths[0]}; {_CURE}") from error
            raise

    def _get_bundle_manager(self, bundle_context_manager: Any) -> BundleManager:
        manager = super()._get_bundle_manager(bundle_context_manager)
        if isinstance(manager, ParallelBundleManager):
            manager.__class__ = _KeepsDeferred
        return manager


def _command() -> str:
    """Return the shell command of a worker, which finds these sources also where they are not installed."""
    root = str(Path(__file__).resolve().parents[1])
    worker = f"{shlex.quote(sys.executable)} -m pipelines.engine_worker"
    return f'PYTHONPATH={shlex.quote(root)}"${{PYTHONPATH:+:$PYTHONPATH}}" exec {worker}'


class _ProcessEnvironment(SubprocessSDKEnvironment):
    """A worker in a process that is watched."""

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:  # noqa: ARG002 - Beam's signature
        return _PROCESS_URN, self.command_string.encode()


Environment.register_urn(
    _PROCESS_URN,
    bytes,
    lambda payload, capabilities, artifacts, hints, _context: _ProcessEnvironment(
        payload.decode(), capabilities, artifacts, hints
    ),
)


@WorkerHandler.register_environment(_PROCESS_URN, bytes)
class _ProcessHandler(SubprocessSdkWorkerHandler):
    """Starts a worker, and answers in its place once it is dead, so that the run ends and says so."""

    def start_worker(self) -> None:
        self._is_closing = threading.Event()
        self.worker = SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="rowbeam-worker", target=self._watch)
        self.worker_thread.start()

    def close(self) -> None:
        self._is_closing.set()
        super().close()

    def _watch(self) -> None:
        try:
            self.worker.run()
        except RuntimeError as error:
            _deaths.append(str(error))
            while not self._is_closing.wait(_LOOK_S):
                for number, future in list(self.control_conn._futures_by_id.items()):  # noqa: SLF001 - no other way
                    future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=number, error=_DIED))


@contextmanager
def _quiet_channels() -> Iterator[None]:
    """Keep Beam's threads that read from a dead worker from showing their tracebacks; the run says what happened."""
    hook = threading.excepthook

    def quiet(failed: Any) -> None:
        if failed.exc_type.__module__.partition(".")[0] != "grpc":
            hook(failed)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = hook


class _KeepsDeferred(ParallelBundleManager):
    """Runs a bundle in parts, side by side; what their elements deferred is in the merged result too."""

    def process_bundle(
        self, inputs: Any, expected_outputs: Any, fired_timers: Any, expected_output_timers: Any, dry_run: bool = False
    ) -> Any:
        parts: list[dict[str, list[bytes]]] = [{} for _ in range(self._num_workers)]
        for name, buffer in inputs.items():
            for part, data in zip(parts, buffer.partition(self._num_workers), strict=True):
                part[name] = data

        def run(number: int) -> Any:
            manager = BundleManager(
                self.bundle_context_manager,
                self._progress_frequency,
                cache_token_generator=self._cache_token_generator,
            )
            timers = {} if number else fired_timers
            return manager.process_bundle(parts[number], expected_outputs, timers, expected_output_timers, dry_run)

        # The timers are the first part's; of the others, those with nothing to do are left out.
        numbers = [number for number, part in enumerate(parts) if not number or any(part.values())]
        with ThreadPoolExecutor(len(numbers)) as threads:
            done = list(threads.map(run, numbers))
        return _merged([result for result, _ in done]), [split for _, splits in done for split in splits]


def _merged(results: list[Any]) -> Any:
    """Return one answer for all parts of a bundle; a part that failed has raised, and finalised itself if it had to."""
    bundles = [result.process_bundle for result in results]
    response = beam_fn_api_pb2.ProcessBundleResponse(
        monitoring_infos=monitoring_infos.consolidate(info for bundle in bundles for info in bundle.monitoring_infos),
        residual_roots=[root for bundle in bundles for root in bundle.residual_roots],
    )
    return beam_fn_api_pb2.InstructionResponse(process_bundle=response)
