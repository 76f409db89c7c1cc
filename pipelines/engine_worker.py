"""The program that a runner starts on a worker: `rowbeam-worker`, for --environment_type=PROCESS and worker pools.

Beam's own such program is in its container images only. This one runs Beam's Python worker in the environment it
lies in, so what stages import must be installed there: nothing that was staged with the job is installed.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

_PATIENCE_S = 60.0
#: What the worker is told in its environment, and what it is called where the runner tells it.
_ENDPOINTS = {
    "CONTROL_API_SERVICE_DESCRIPTOR": "control_endpoint",
    "LOGGING_API_SERVICE_DESCRIPTOR": "logging_endpoint",
    "STATUS_API_SERVICE_DESCRIPTOR": "status_endpoint",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the runner says until it ends; returns the process's exit code.

    Where the environment already says where the runner listens (FnApiRunner), no arguments are needed.
    """
    # What is logged goes to the runner. Without a handler, Beam's first warning would set up one for the terminal too.
    logging.getLogger().addHandler(logging.NullHandler())
    if "CONTROL_API_SERVICE_DESCRIPTOR" not in os.environ:
        arguments = _parse(sys.argv[1:] if argv is None else argv)
        # Prism puts the id between quotation marks.
        os.environ.update(worker_environment(arguments.id.strip("'"), arguments.provision_endpoint))
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])
    return 0


def worker_environment(worker_id: str, provision_endpoint: str) -> dict[str, str]:
    """Return the variables that tell Beam's worker its id, its options and where its runner listens.

    Raises:
        grpc.RpcError: the runner does not answer within a minute.
    """
    import grpc  # type: ignore[import-untyped]
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

    with grpc.insecure_channel(provision_endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        asked = service.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            metadata=[("worker_id", worker_id)],
            timeout=_PATIENCE_S,
            wait_for_ready=True,
        )
    return _variables(worker_id, asked.info)


def _variables(worker_id: str, info: Any) -> dict[str, str]:
    from google.protobuf.json_format import MessageToJson  # type: ignore[import-untyped]
    from google.protobuf.text_format import MessageToString  # type: ignore[import-untyped]

    found = {
        "WORKER_ID": worker_id,
        "PIPELINE_OPTIONS": MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    for variable, field in _ENDPOINTS.items():
        if info.HasField(field):
            found[variable] = MessageToString(getattr(info, field))
    return found


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rowbeam-worker", description="Beam's Python worker; runners start it.")
    parser.add_argument("--id", required=True, help="the worker's id")
    parser.add_argument("--provision_endpoint", required=True, help="HOST:PORT where the runner tells the rest")
    # The endpoints that some runners also name come with the rest.
    return parser.parse_known_args(argv)[0]


if __name__ == "__main__":
    sys.exit(main())
