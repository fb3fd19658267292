"""Runs the demo: the commands that a new user would type, with progress and durations."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster import usage_lock
from tests.e2e import operator_release
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.port_forward import PortForward

HERE = Path(__file__).parent
EXAMPLE = "manifests/examples/mlflowserver.yaml"
NAMESPACE = "mlflow-demo"
SCRIPTS = ("iris.py", "churn.py")
READY_TIMEOUT_SECONDS = 300.0
TRAINING_TIMEOUT_SECONDS = 600.0


class DemoError(Exception):
    """The demo cannot continue; the message gives the reason and the next action."""


class Demo:
    """One run of the demo. `kube` is a client for the demo's namespace."""

    def __init__(self, kube: Kube, since: float | None = None) -> None:
        """`since`: start time of the whole command, in seconds since 1970."""
        self.kube, self.start_time = kube, time.monotonic()
        self.command_start = time.time() if since is None else since

    def log(self, text: str) -> None:
        """Print a line with the seconds since the start of the demo."""
        print(f"{time.monotonic() - self.start_time:6.1f} s  {text}", flush=True)

    def install_operator(self) -> None:
        """Install the operator by Helm, as described in the README."""
        self.log("helm upgrade --install mlflow-operator charts/mlflow-operator")
        operator_release.install(self.kube)

    def apply_server(self) -> str:
        """Apply the example; returns the server's name."""
        namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.kube.apply(namespace)
        self.log(f"kubectl apply -f {EXAMPLE}")
        for applied in self.kube.kubectl("apply", "-f", EXAMPLE, "-o", "name").split():
            if applied.startswith("mlflowserver"):
                name = applied.split("/")[1]
                # A killed benchmark leaves the server suspended.
                self.kube.patch("MLflowServer", name, {"spec": {"suspend": False}})
                return name
        raise DemoError(f"{EXAMPLE} contains no MLflowServer.")

    def wait_ready(self, name: str) -> None:
        """Wait until the server is Ready, and print each condition when it changes."""
        start, shown = time.monotonic(), dict[str, str]()
        while time.monotonic() - start < READY_TIMEOUT_SECONDS:
            resource = self.kube.require("MLflowServer", name)
            status = resource.get("status") or {}
            is_current = status.get("observedGeneration") == resource["metadata"]["generation"]
            for condition in status.get("conditions") or []:
                condition_type, line = condition["type"], f"{condition['type']}: {condition['message']}"
                if shown.get(condition_type) != line and condition["reason"] != "WaitingForDependency":
                    shown[condition_type] = line
                    self.log(f"  {line}")
                if condition_type == "Ready" and condition["status"] == "True" and is_current:
                    self.log(f"Ready after {time.monotonic() - start:.1f} s")
                    return
            time.sleep(0.2)
        raise DemoError(
            f'MLflowServer "{name}" is not Ready after {READY_TIMEOUT_SECONDS:.0f} s. '
            "The conditions above name the cause."
        )

    def train(self, url: str) -> None:
        """Run two training scripts in parallel on this machine, outside the cluster."""
        processes = [(script, self._start(script, url)) for script in SCRIPTS]
        try:
            for script, process in processes:
                out, errors = process.communicate(timeout=TRAINING_TIMEOUT_SECONDS)
                self.log(f"{script}:")
                for line in out.splitlines():
                    self.log(f"  {line}")
                if process.returncode:
                    raise DemoError(f"{errors}\n{script} failed with the error above.")
        finally:
            for _, process in processes:
                process.kill()
                process.wait()

    def _start(self, script: str, url: str) -> "subprocess.Popen[str]":
        self.log(f"MLFLOW_TRACKING_URI={url} python tests/demo/{script}")
        settings = {"MLFLOW_TRACKING_URI": url, "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
        return subprocess.Popen(
            [sys.executable, str(HERE / script)],
            cwd=HERE,
            env={**os.environ, **settings},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def print_diagnostics(self, error: object) -> None:
        """Print the error, and the objects and events that a user would check first."""
        print(f"\n{error}\n", file=sys.stderr)
        for command in (("get", "mlflowservers,pods"), ("get", "events", "--sort-by=.lastTimestamp")):
            try:
                print(f"$ kubectl -n {NAMESPACE} {' '.join(command)}", file=sys.stderr)
                print("\n".join(self.kube.kubectl(*command).splitlines()[-15:]), file=sys.stderr)
            except (CommandError, subprocess.TimeoutExpired) as kubectl_error:
                print(kubectl_error, file=sys.stderr)
        print(
            "\ndocs/operations/troubleshooting.md explains each reason. To see the operator's log:\n"
            f"  kubectl -n {operator_release.NAMESPACE} logs deployment/{operator_release.RELEASE}\n"
            "Then run make demo again. It continues with the existing objects.",
            file=sys.stderr,
        )

    def print_summary(self, name: str) -> None:
        """Print the server's URL, how to open it, and the next steps."""
        port = self.kube.require("Service", name)["spec"]["ports"][0]["port"]
        url = self.kube.require("MLflowServer", name)["status"]["url"]
        duration = time.monotonic() - self.start_time
        minutes, seconds = divmod(round(time.time() - self.command_start), 60)
        print(f"""
The demo succeeded in {duration:.0f} s ({minutes} min {seconds} s including the cluster).
The server keeps running. It contains two experiments and the registered model "churn".

  URL in the cluster: {url}
  Open it from this machine:
    export KUBECONFIG={self.kube.settings.kubeconfig} PATH={self.kube.settings.bin}:$PATH
    kubectl -n {NAMESPACE} port-forward service/{name} 5000:{port}
    # then open http://localhost:5000, or set MLFLOW_TRACKING_URI=http://localhost:5000 for a script
  Next steps: docs/guides/connect.md describes how to use the server, `make test` runs the tests.
  Remove everything: make clean""")


def main() -> int:
    """Run the demo. Returns 0 if the registered model was loaded and predicts, otherwise 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo", description="Run the demo on the test cluster."
    )
    parser.add_argument("action", nargs="?", choices=["install"], help="only install the operator")
    parser.add_argument("--since", type=float, help="start time of the whole command, in seconds since 1970")
    arguments = parser.parse_args()
    try:
        demo = Demo(Kube(NAMESPACE), arguments.since)
    except FileNotFoundError as missing:
        print(missing, file=sys.stderr)
        return 1
    try:
        with usage_lock.hold(demo.kube.settings, shared=True):
            demo.install_operator()
            if arguments.action != "install":
                _run(demo)
    except (DemoError, AssertionError, TimeoutError, subprocess.TimeoutExpired) as error:
        demo.print_diagnostics(error)
        return 1
    return 0


def _run(demo: Demo) -> None:
    name = demo.apply_server()
    demo.wait_ready(name)
    port = demo.kube.require("Service", name)["spec"]["ports"][0]["port"]
    with PortForward(demo.kube, name, port) as forward:
        demo.train(forward.url)
    demo.print_summary(name)


if __name__ == "__main__":
    sys.exit(main())
