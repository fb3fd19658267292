"""`mlflow server` with one copy of MLflow less.

MLflow's command imports MLflow, checks its options and the database, starts uvicorn as another process, which imports
it all again, and from then on waits for its end. Here one worker serves in the very process that has checked, half of
a start and of the memory; and where there are more, uvicorn's supervisor takes the place of what would but wait.
"""

import os
import sys

# Before MLflow: what it finds imported tells it that it is to serve, and so to check hosts and origins.
from uvicorn.main import main as uvicorn

UVICORN = [sys.executable, "-m", "uvicorn"]
WAITED_FOR = {"capture_output": False, "synchronous": False}  # as MLflow starts its server, and nothing else
JOBS = "_MLFLOW_HUEY_STORAGE_PATH"  # with it MLflow has a second process to start and to wait for

READ_LATE = {
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "MLFLOW_SERVER_SECRETS_CACHE_MAX_SIZE",
    "MLFLOW_SERVER_SECRETS_CACHE_TTL",
    "_MLFLOW_IN_JOB_EXECUTOR",
    "_MLFLOW_SERVER_ARTIFACTS_ONLY",
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION",
    "_MLFLOW_SERVER_ARTIFACT_ROOT",
    "_MLFLOW_SERVER_BOOT_ID",
    "_MLFLOW_SERVER_FILE_STORE",
    "_MLFLOW_SERVER_REGISTRY_STORE",
    "_MLFLOW_SERVER_SERVE_ARTIFACTS",
    "_MLFLOW_SGI_NAME",
}
"""What MLflow tells its server and reads when it is asked something. The rest it reads on import, which is over."""


def taking_its_place(spawn):
    """`spawn`, MLflow's own way to start a process, unless what it shall start is the server."""

    def start(command, *, extra_env=None, **how):
        told = extra_env or {}
        if command[:3] != UVICORN or how != WAITED_FOR or JOBS in told:
            return spawn(command, extra_env=extra_env, **how)
        options = uvicorn.make_context("uvicorn", command[3:]).params
        if options["workers"] == 1 and not options["reload"] and told.keys() <= READ_LATE:
            os.environ.update(told)
            sys.exit(uvicorn.main(command[3:], standalone_mode=False))
        os.execve(sys.executable, command, {**os.environ, **told})  # noqa: S606 - MLflow does the same
        return None  # never

    return start


def main():
    """What `mlflow` does with the same arguments."""
    from mlflow import server
    from mlflow.cli import cli

    if hasattr(server, "_exec_cmd"):
        server._exec_cmd = taking_its_place(server._exec_cmd)
    cli(prog_name="mlflow")


if __name__ == "__main__":
    main()
