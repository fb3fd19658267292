"""Run `mlflow server` with only one import of MLflow.

MLflow's command imports MLflow, checks its options and the database, starts uvicorn as another process, which imports
MLflow again, in each worker, and then waits for it. Here MLflow is imported once. A child process runs the checks,
reports what MLflow would start, and exits, which closes everything that it opened. This process never connected to
anything. It then serves itself, or forks as many workers as requested, which share all memory that they do not change.

If that is not possible, MLflow's own command replaces this process, and needs about twice the memory. The log then has
one line that begins with FALLBACK_PREFIX and contains the reason. The termination message has it, too: see
`report_fallback`.
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

# Before MLflow: if uvicorn is already imported, MLflow knows that it runs in a server and checks hosts and origins.
from uvicorn.main import main as uvicorn

from . import dual_stack

try:
    from uvicorn import _subprocess as workers
except ImportError:
    workers = None

MLFLOW = [sys.executable, "-m", dual_stack.__name__]
UVICORN = [sys.executable, "-m", "uvicorn"]
SERVER_OPTIONS = {"capture_output": False, "synchronous": False}
"""Options with which MLflow starts its server, and no other process."""
JOB_STORAGE_VARIABLE = "_MLFLOW_HUEY_STORAGE_PATH"
"""If MLflow sets this variable, it also starts a second process, and waits for it."""
EXIT_CODE_SIGTERM = 128 + signal.SIGTERM

FALLBACK_PREFIX = "mlflow-operator: the fast path is not used: "
"""The operator searches termination messages for it. After it follows the reason, without values of variables."""
TERMINATION_LOG = "/dev/termination-log"
REPORTED_FILE = ".mlflow-operator-fallback"
"""File in HOME, which outlives the container. It exists if the container has ended to report a fallback."""

RUNTIME_VARIABLES = {
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
    "_MLFLOW_SERVER_TLS_LISTENER",
    "_MLFLOW_SGI_NAME",
}
"""Variables that MLflow sets for its server and that the server reads when it handles requests. It reads all others on
import, which has already happened here."""


def report_fallback(reason):
    """Write to the log why MLflow's own command replaces this process, and, once in each pod, to the pod's status.

    Kubernetes reads a termination message only when the container ends. So the process ends, and the kubelet starts the
    container again at once. This costs one import of MLflow, but the operator needs no permission to read logs.
    """
    line = f"{FALLBACK_PREFIX}{reason}"
    print(line, file=sys.stderr, flush=True)
    if not os.path.exists(TERMINATION_LOG):
        return
    try:
        # first the file: without it, the container would end again and again
        with open(os.path.join(os.environ["HOME"], REPORTED_FILE), "x"):
            pass
        with open(TERMINATION_LOG, "w") as file:
            file.write(line)
    except OSError:
        return
    sys.exit(0)


def reporter(descriptor):
    """Return a replacement for MLflow's function that starts a process. It writes the command to a file descriptor.

    For a process that MLflow waits for, it writes why this is not the server alone. MLflow must start such a process
    itself, so `mlflow` is then executed in the place of both processes.
    """

    def start(command, *, extra_env=None, **options):
        server_env = extra_env or {}
        obstacle = None
        if JOB_STORAGE_VARIABLE in server_env:
            obstacle = "MLflow starts background jobs, too"
        elif command[:3] != UVICORN:
            obstacle = "MLflow starts another program than uvicorn"
        elif options != SERVER_OPTIONS:
            obstacle = "MLflow starts its server in another way"
        with os.fdopen(descriptor, "w") as parent:
            json.dump(obstacle or [command, server_env, dict(os.environ)], parent)
        sys.exit(0)

    return start


def run_checks(run, server):
    """Run MLflow's checks; return the command that starts its server, its extra variables, and the environment.

    Returns the reason as text if MLflow starts something else. `run` is MLflow's command, and `server` the module that
    starts the process. If the command fails, this process exits with the same code.
    """
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        # the other threads belong to libraries that support fork
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.close(read_end)
        server._exec_cmd = reporter(write_end)
        run()
        sys.exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if exit_code or not text:
        sys.exit(exit_code if exit_code >= 0 else 128 - exit_code)
    return json.loads(text)


def serve(command, server_env, environment):
    """Do in this process what the uvicorn `command` would do in another one."""
    options = uvicorn.make_context("uvicorn", command[3:]).params
    complete_env = {**environment, **server_env}
    obstacle = import_obstacle(server_env, options)
    if not obstacle:
        os.environ.update(complete_env)
        for name in ("mlflow.server.fastapi_app", options["app"].partition(":")[0]):
            importlib.import_module(name)
        obstacle = use_fork() if options["workers"] != 1 else None
    if not obstacle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        dual_stack.add_ipv6()
        sys.exit(uvicorn.main(command[3:], standalone_mode=False))
    report_fallback(obstacle)
    os.execve(sys.executable, dual_stack.with_ipv6(command, MLFLOW), complete_env)  # noqa: S606 - as MLflow does


def import_obstacle(server_env, options):
    """Why the server needs another import of MLflow; None if it does not.

    MLflow passes on some variables of its environment. It had their values when it was imported.
    """
    changed = {name for name, value in server_env.items() if os.environ.get(name) != value}
    unknown = sorted(changed - RUNTIME_VARIABLES)
    if unknown:
        return f"MLflow sets {', '.join(unknown)}, which its server may read on import"
    return "uvicorn has the option --reload" if options["reload"] else None


def use_fork():
    """Make uvicorn fork its workers from this process. If that is not safe, change nothing and return the reason.

    It is not safe if another Python thread might hold a lock, which would never be released in a fork, or if this
    version of uvicorn starts its workers in another way. The threads of numpy and pyarrow support fork.
    """
    if threading.active_count() > 1:
        return "another thread runs, which does not support fork"
    if not hasattr(workers, "spawn"):
        return "this version of uvicorn starts its workers in another way"
    # the garbage collectors of the workers ignore frozen objects; touching them would copy their memory pages
    gc.collect()
    gc.freeze()
    workers.spawn = multiprocessing.get_context("fork")
    return None


def main():
    """Do what `mlflow` does with the same arguments."""
    # the first process of a container ignores signals without a handler, and a starting pod must be able to end, too
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_CODE_SIGTERM))
    from mlflow import server
    from mlflow.cli import cli

    if hasattr(server, "_exec_cmd"):
        result = run_checks(lambda: cli(prog_name="mlflow"), server)
    else:
        result = "mlflow.server has no function _exec_cmd"
    if not isinstance(result, str):
        serve(*result)
    report_fallback(result)
    os.execv(sys.executable, [*MLFLOW, *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()
