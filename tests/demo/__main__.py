"""The demo's driver: the commands a newcomer would type, with what happens meanwhile and how long it took."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster import usage_lock
from tests.e2e import operator_release
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.port_forward import Forward

HERE = Path(__file__).parent
EXAMPLE = "manifests/examples/mlflowserver.yaml"
NAMESPACE = "mlflow-demo"
SCRIPTS = ("iris.py", "churn.py")
READY_WITHIN = 300.0
TRAINING_WITHIN = 600.0


class Stuck(Exception):  # noqa: N818  the name says what it means
    """The demo cannot continue; the message gives the reason and the next action."""


class Demo:
    """One run; `kube` is in the demo's namespace."""

    def __init__(self, kube: Kube, since: float | None = None) -> None:
        """`since` is when the whole command began, in seconds since 1970."""
        self.kube, self.begin = kube, time.monotonic()
        self.since = time.time() if since is None else since

    def say(self, text: str) -> None:
        """A line, with the seconds since the demo began."""
        print(f"{time.monotonic() - self.begin:6.1f} s  {text}", flush=True)

    def install_operator(self) -> None:
        """By Helm, as the README tells it."""
        self.say("helm upgrade --install mlflow-operator charts/mlflow-operator")
        operator_release.install(self.kube)

    def apply_server(self) -> str:
        """Returns the server's name."""
        namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.kube.apply(namespace)
        self.say(f"kubectl apply -f {EXAMPLE}")
        for applied in self.kube.kubectl("apply", "-f", EXAMPLE, "-o", "name").split():
            if applied.startswith("mlflowserver"):
                name = applied.split("/")[1]
                # A benchmark that was killed leaves it suspended.
                self.kube.patch("MLflowServer", name, {"spec": {"suspend": False}})
                return name
        raise Stuck(f"{EXAMPLE} holds no MLflowServer.")

    def wait_ready(self, name: str) -> None:
        """Shows each condition as it changes."""
        applied, told = time.monotonic(), dict[str, str]()
        while time.monotonic() - applied < READY_WITHIN:
            resource = self.kube.need("MLflowServer", name)
            status = resource.get("status") or {}
            current = status.get("observedGeneration") == resource["metadata"]["generation"]
            for condition in status.get("conditions") or []:
                kind, line = condition["type"], f"{condition['type']}: {condition['message']}"
                if told.get(kind) != line and condition["reason"] != "WaitingForDependency":
                    told[kind] = line
                    self.say(f"  {line}")
                if kind == "Ready" and condition["status"] == "True" and current:
                    self.say(f"Ready {time.monotonic() - applied:.1f} s after it was applied")
                    return
            time.sleep(0.2)
        raise Stuck(
            f'MLflowServer "{name}" is not ready after {READY_WITHIN:.0f} s. The conditions above name the cause.'
        )

    def train(self, url: str) -> None:
        """Runs two data scientists' scripts side by side on this machine, outside the cluster."""
        running = [(script, self._start(script, url)) for script in SCRIPTS]
        try:
            for script, process in running:
                out, errors = process.communicate(timeout=TRAINING_WITHIN)
                self.say(f"{script}:")
                for line in out.splitlines():
                    self.say(f"  {line}")
                if process.returncode:
                    raise Stuck(f"{errors}\n{script} failed; its error is above.")
        finally:
            for _, process in running:
                process.kill()
                process.wait()

    def _start(self, script: str, url: str) -> "subprocess.Popen[str]":
        self.say(f"MLFLOW_TRACKING_URI={url} python tests/demo/{script}")
        quiet = {"MLFLOW_TRACKING_URI": url, "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
        return subprocess.Popen(
            [sys.executable, str(HERE / script)],
            cwd=HERE,
            env={**os.environ, **quiet},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def explain(self, why: object) -> None:
        """What a person would look at first."""
        print(f"\n{why}\n", file=sys.stderr)
        for look in (("get", "mlflowservers,pods"), ("get", "events", "--sort-by=.lastTimestamp")):
            try:
                print(f"$ kubectl -n {NAMESPACE} {' '.join(look)}", file=sys.stderr)
                print("\n".join(self.kube.kubectl(*look).splitlines()[-15:]), file=sys.stderr)
            except (CommandError, subprocess.TimeoutExpired) as fault:
                print(fault, file=sys.stderr)
        print(
            "\nWhat each reason means: docs/when-something-is-wrong.md. The operator's log:\n"
            f"  kubectl -n {operator_release.NAMESPACE} logs deployment/{operator_release.RELEASE}\n"
            "Then run make demo again: what exists is kept.",
            file=sys.stderr,
        )

    def goodbye(self, name: str) -> None:
        """Where it is, how to open it, and what to do next."""
        service = self.kube.need("Service", name)["spec"]["ports"][0]["port"]
        url = self.kube.need("MLflowServer", name)["status"]["url"]
        took = time.monotonic() - self.begin
        minutes, seconds = divmod(round(time.time() - self.since), 60)
        print(f"""
Done in {took:.0f} s; {minutes} min {seconds} s in total.
The server stays, with two experiments and the model "churn" in it.

  In the cluster: {url}
  To open it here:
    export KUBECONFIG={self.kube.settings.kubeconfig} PATH={self.kube.settings.bin}:$PATH
    kubectl -n {NAMESPACE} port-forward service/{name} 5000:{service}
    then http://localhost:5000 in a browser, or MLFLOW_TRACKING_URI=http://localhost:5000 for a script
  Next: make test, or a server of your own: docs/connect.md. To remove everything: make clean""")


def main() -> int:
    """Exit code 0 if the model was loaded back and predicts, otherwise 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo", description="The demo, on the test cluster."
    )
    parser.add_argument("does", nargs="?", choices=["install"], help="only install the operator")
    parser.add_argument("--since", type=float, help="when the whole command began, in seconds since 1970")
    asked = parser.parse_args()
    try:
        demo = Demo(Kube(NAMESPACE), asked.since)
    except FileNotFoundError as missing:
        print(missing, file=sys.stderr)
        return 1
    try:
        with usage_lock.hold(demo.kube.settings, shared=True):
            demo.install_operator()
            if asked.does != "install":
                _run(demo)
    except (Stuck, AssertionError, TimeoutError, subprocess.TimeoutExpired) as why:
        demo.explain(why)
        return 1
    return 0


def _run(demo: Demo) -> None:
    name = demo.apply_server()
    demo.wait_ready(name)
    port = demo.kube.need("Service", name)["spec"]["ports"][0]["port"]
    with Forward(demo.kube, name, port) as forward:
        demo.train(forward.url)
    demo.goodbye(name)


if __name__ == "__main__":
    sys.exit(main())
