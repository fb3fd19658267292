"""The test cluster as tests use it: kubectl for what people do with kubectl, a client for fast polling."""

import json
import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import NotFoundError
from urllib3.exceptions import HTTPError

from tests.cluster import node, settings
from tests.cluster.shell import Shell
from tests.e2e import timeouts

Object = dict[str, Any]

KINDS = {
    "MLflowServer": "mlflow-operator.dev/v1alpha1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "PodDisruptionBudget": "policy/v1",
    "Lease": "coordination.k8s.io/v1",
}
"""API versions; kinds that are not named are of the core, v1."""

TEST_LABEL = "mlflow-operator.dev/e2e"
"""On every namespace that a test makes; such a namespace goes when the next run begins, if not before."""


class CommandError(AssertionError):
    """kubectl ended with an error; the message is what it printed."""


class Kube:
    """One cluster. Methods that take a namespace default to `namespace`."""

    def __init__(self, namespace: str = "default") -> None:
        self.namespace = namespace
        self.settings = settings.load()
        if not self.settings.kubeconfig.exists():
            raise FileNotFoundError(f"There is no {self.settings.kubeconfig}. Run: make cluster")
        self.env = {
            **os.environ,
            "KUBECONFIG": str(self.settings.kubeconfig),
            "PATH": f"{self.settings.bin}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        }

    @cached_property
    def _dynamic(self) -> DynamicClient:
        return DynamicClient(config.new_client_from_config(str(self.settings.kubeconfig)))

    @cached_property
    def shell(self) -> Shell:
        """Runs programs on this machine as `make` does."""
        log = self.settings.root / "out" / "shell.log"
        log.parent.mkdir(exist_ok=True)
        return Shell(log, {"PATH": self.env["PATH"], "KUBECONFIG": self.env["KUBECONFIG"]})

    @cached_property
    def node_address(self) -> str:
        """Where NodePorts answer."""
        return node.address(self.shell)

    def run(self, program: str, *args: str, stdin: str = "", within: float = 300) -> str:
        """A program of the project's own (`helm`, `docker`); returns stdout. Raises CommandError."""
        done = subprocess.run(
            [program, *args],
            env=self.env,
            cwd=self.settings.root,
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            timeout=within,
        )
        if done.returncode:
            raise CommandError(f"{program} {' '.join(args)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def kubectl(self, *args: str, stdin: str = "", within: float = 120) -> str:
        """kubectl as a person calls it, in this namespace."""
        return self.run("kubectl", "-n", self.namespace, *args, stdin=stdin, within=within)

    def apply(self, *objects: Object) -> None:
        """`kubectl apply`, in this namespace unless an object names another."""
        places: dict[str, list[Object]] = {}
        for each in objects:
            places.setdefault(each["metadata"].get("namespace", self.namespace), []).append(each)
        for namespace, group in places.items():
            self.run("kubectl", "-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump_all(group))

    def node_command(self, *args: str) -> str:
        """Runs a program on the cluster's one node."""
        return self.run("docker", "exec", node.CONTAINER, *args)

    def _resource(self, kind: str) -> Any:
        return self._dynamic.resources.get(api_version=KINDS.get(kind, "v1"), kind=kind)

    def get(self, kind: str, name: str) -> Object | None:
        """One object, None if there is none."""
        try:
            found: Object = self._resource(kind).get(name=name, namespace=self.namespace).to_dict()
        except NotFoundError:
            return None
        return found

    def need(self, kind: str, name: str) -> Object:
        """One object that must be there."""
        found = self.get(kind, name)
        assert found is not None, f"{kind} {self.namespace}/{name} does not exist"
        return found

    def list(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        """All of a kind in the namespace, or those with these labels."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        found = self._resource(kind).get(namespace=self.namespace, label_selector=selector).to_dict()
        return [*found["items"]]

    def changes(self, of: Object, seconds: float) -> Iterator[Object]:
        """What becomes of an object from the state `of` on, deletions left out; ends after so many seconds."""
        meta = of["metadata"]
        for event in self._resource(of["kind"]).watch(
            namespace=self.namespace,
            name=meta["name"],
            resource_version=meta["resourceVersion"],
            # to the API server 0 is no limit
            timeout=max(1, math.ceil(seconds)),
        ):
            if event["type"] != "DELETED":
                yield event["raw_object"]

    def changed(self, of: Object, seconds: float) -> None:
        """Waits until an object is not in the state `of` any more, for so many seconds at most. To ask every moment
        was every sixth request that the API server answered while a server started."""
        try:
            next(self.changes(of, seconds), None)
        except (HTTPError, ApiException):
            # it is too long ago for the API server to know, or nobody is there who would
            time.sleep(timeouts.POLL)

    def patch(self, kind: str, name: str, change: Object) -> None:
        """A JSON merge patch."""
        self._resource(kind).patch(
            name=name, namespace=self.namespace, body=change, content_type="application/merge-patch+json"
        )

    def delete(self, kind: str, name: str, *, grace: int | None = None) -> None:
        """Deletes and does not wait. `grace` 0 is force: nothing is asked to end in order."""
        options = {} if grace is None else {"body": client.V1DeleteOptions(grace_period_seconds=grace)}
        self._resource(kind).delete(name=name, namespace=self.namespace, **options)

    def evict(self, pod: str) -> None:
        """Asks a pod to leave its node, as `kubectl drain` does."""
        meta = {"name": pod, "namespace": self.namespace}
        asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(asked))

    def within(self, namespace: str) -> "Kube":
        """The same cluster, another namespace."""
        other = Kube.__new__(Kube)
        other.__dict__.update(self.__dict__)
        other.namespace = namespace
        return other
