"""`mlflow server` with one copy of MLflow.

MLflow's command imports MLflow, checks its options and the database, starts uvicorn as another process, which imports
it all again, in each worker, and from then on waits for its end. Here it is imported once. A child checks, says what
MLflow would start, and takes what it opened with it; this process, which never connected to anything, serves, or has
as many workers as were asked for, which are copies of it and share what they do not change.
"""

import gc
import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import warnings

# Before MLflow: what it finds imported tells it that it is to serve, and so to check hosts and origins.
from uvicorn.main import main as uvicorn

try:
    from uvicorn import _subprocess as workers
except ImportError:
    workers = None

MLFLOW = [sys.executable, "-m", "mlflow"]
UVICORN = [sys.executable, "-m", "uvicorn"]
WAITED_FOR = {"capture_output": False, "synchronous": False}  # as MLflow starts its server, and nothing else
JOBS = "_MLFLOW_HUEY_STORAGE_PATH"  # with it MLflow has a second process to start and to wait for
TERMINATED = 128 + signal.SIGTERM

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


def telling(whom):
    """In the place of MLflow's own way to start a process: tells `whom`, a file descriptor, what would be started.

    Whatever MLflow would have to wait for it has to start itself, and so to begin anew, in the place of both.
    """

    def start(command, *, extra_env=None, **how):
        told = extra_env or {}
        plain = command[:3] == UVICORN and how == WAITED_FOR and JOBS not in told
        with os.fdopen(whom, "w") as parent:
            json.dump([command, told, dict(os.environ)] if plain else None, parent)
        sys.exit(0)

    return start


def checked(run, server):
    """What MLflow would start as its server: the command, what it is told, and the environment of both.

    None if it is none of ours. `run` is its command, and `server` the module that starts it; it ends with a code of
    its own if it finds anything wrong, and so does this process.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # the other threads are those of libraries, which are prepared for it
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.close(reader)
        server._exec_cmd = telling(writer)
        run()
        sys.exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code or not text:
        sys.exit(code if code >= 0 else 128 - code)
    return json.loads(text)


def serve(command, told, environment):
    """Does what `command`, one of uvicorn, would do in another process."""
    options = uvicorn.make_context("uvicorn", command[3:]).params
    everything = {**environment, **told}
    if told.keys() <= READ_LATE and not options["reload"]:
        os.environ.update(everything)
        for name in ("mlflow.server.fastapi_app", options["app"].partition(":")[0]):
            importlib.import_module(name)
        if options["workers"] == 1 or workers_are_copies():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            sys.exit(uvicorn.main(command[3:], standalone_mode=False))
    os.execve(sys.executable, command, everything)  # noqa: S606 - MLflow does the same


def workers_are_copies():
    """Has uvicorn copy this process for each worker; False, and nothing done, where that is not safe.

    It is not if another thread of Python's might hold a lock, which in a copy nobody would give back, or if uvicorn
    does not start its workers as we know it. Threads of numpy's and pyarrow's libraries are prepared for it.
    """
    if threading.active_count() > 1 or not hasattr(workers, "spawn"):
        return False
    # what is there now no worker's collector looks at, which would have each get a copy of its own
    gc.collect()
    gc.freeze()
    workers.spawn = multiprocessing.get_context("fork")
    return True


def main():
    """What `mlflow` does with the same arguments."""
    # the first process of a container is deaf to what it does not handle, and a pod that starts may have to go, too
    signal.signal(signal.SIGTERM, lambda *_: os._exit(TERMINATED))
    from mlflow import server
    from mlflow.cli import cli

    if not hasattr(server, "_exec_cmd"):
        cli(prog_name="mlflow")
    found = checked(lambda: cli(prog_name="mlflow"), server)
    if not found:
        os.execv(sys.executable, [*MLFLOW, *sys.argv[1:]])  # noqa: S606
    serve(*found)


if __name__ == "__main__":
    main()
