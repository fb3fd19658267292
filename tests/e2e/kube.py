"""Access to the test cluster: kubectl for what users do with kubectl, and a client for fast polling."""

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

API_VERSIONS = {
    "MLflowServer": "mlflow-operator.dev/v1alpha1",
    "MLflowPlatform": "mlflow-operator.dev/v1alpha1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "PodDisruptionBudget": "policy/v1",
    "Lease": "coordination.k8s.io/v1",
}
"""API versions by kind. Kinds that are not listed belong to the core API, v1."""

TEST_LABEL = "mlflow-operator.dev/e2e"
"""Label of every namespace that a test creates. The next run deletes namespaces with this label that are left."""


class CommandError(AssertionError):
    """A command failed; the message contains its output."""


class Kube:
    """Client of the test cluster for one namespace. With `user`, all requests have the permissions of this user."""

    user = ""

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
        api = config.new_client_from_config(str(self.settings.kubeconfig))
        if self.user:
            api.set_default_header("Impersonate-User", self.user)
        return DynamicClient(api)

    @cached_property
    def shell(self) -> Shell:
        """Runs programs on this machine like `make` does."""
        log = self.settings.root / "out" / "shell.log"
        log.parent.mkdir(exist_ok=True)
        return Shell(log, {"PATH": self.env["PATH"], "KUBECONFIG": self.env["KUBECONFIG"]})

    @cached_property
    def node_address(self) -> str:
        """Address of the node, for NodePorts."""
        return node.address(self.shell)

    def run(self, program: str, *args: str, stdin: str = "", within: float = 300) -> str:
        """Run a program (`helm`, `docker`) with the project's PATH; returns stdout. Raises CommandError."""
        completed = subprocess.run(
            [program, *args],
            env=self.env,
            cwd=self.settings.root,
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            timeout=within,
        )
        if completed.returncode:
            raise CommandError(f"{program} {' '.join(args)}\n{completed.stdout}{completed.stderr}")
        return completed.stdout

    def kubectl(self, *args: str, stdin: str = "", within: float = 120) -> str:
        """Run kubectl in this namespace; returns stdout. Raises CommandError."""
        return self.run("kubectl", *self._flags(self.namespace), *args, stdin=stdin, within=within)

    def _flags(self, namespace: str) -> tuple[str, ...]:
        """Return the arguments of kubectl for a namespace and for the user."""
        return ("-n", namespace, *((f"--as={self.user}",) if self.user else ()))

    def apply(self, *objects: Object) -> None:
        """Run `kubectl apply` in the objects' namespaces, by default in this one."""
        by_namespace: dict[str, list[Object]] = {}
        for obj in objects:
            by_namespace.setdefault(obj["metadata"].get("namespace", self.namespace), []).append(obj)
        for namespace, group in by_namespace.items():
            flags = self._flags(namespace)
            self.run("kubectl", *flags, "apply", "-f", "-", stdin=yaml.safe_dump_all(group))

    def create(self, obj: Object) -> None:
        """Create an object in this namespace, without a process and without the annotation of `kubectl apply`."""
        self._resource(obj["kind"]).create(body=obj, namespace=self.namespace)

    def node_command(self, *args: str) -> str:
        """Run a program on the cluster's only node."""
        return self.run("docker", "exec", node.CONTAINER, *args)

    def _resource(self, kind: str) -> Any:
        return self._dynamic.resources.get(api_version=API_VERSIONS.get(kind, "v1"), kind=kind)

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None if it does not exist."""
        try:
            found: Object = self._resource(kind).get(name=name, namespace=self.namespace).to_dict()
        except NotFoundError:
            return None
        return found

    def require(self, kind: str, name: str) -> Object:
        """Return an object. Raises AssertionError if it does not exist."""
        found = self.get(kind, name)
        assert found is not None, f"{kind} {self.namespace}/{name} does not exist"
        return found

    def list(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        """Return all objects of a kind in the namespace, or those with these labels."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        found = self._resource(kind).get(namespace=self.namespace, label_selector=selector).to_dict()
        return [*found["items"]]

    def watch(self, obj: Object, seconds: float) -> Iterator[Object]:
        """Yield the states of an object after the resource version of `obj`, without deletions, for so many seconds."""
        metadata = obj["metadata"]
        for event in self._resource(obj["kind"]).watch(
            namespace=self.namespace,
            name=metadata["name"],
            resource_version=metadata["resourceVersion"],
            # the API server treats 0 as no limit
            timeout=max(1, math.ceil(seconds)),
        ):
            if event["type"] != "DELETED":
                yield event["raw_object"]

    def wait_for_change(self, obj: Object, seconds: float) -> None:
        """Wait until an object has changed since `obj`, for at most so many seconds.

        Polling instead of watching caused every sixth request to the API server while a server started.
        """
        try:
            next(self.watch(obj, seconds), None)
        except (HTTPError, ApiException):
            # the resource version is too old, or the API server is not reachable
            time.sleep(timeouts.POLL_INTERVAL_SECONDS)

    def patch(self, kind: str, name: str, change: Object) -> None:
        """Apply a JSON merge patch."""
        self._resource(kind).patch(
            name=name, namespace=self.namespace, body=change, content_type="application/merge-patch+json"
        )

    def delete(self, kind: str, name: str, *, grace_seconds: int | None = None) -> None:
        """Delete without waiting. `grace_seconds=0` forces deletion without graceful termination."""
        options = (
            {}
            if grace_seconds is None
            else {"body": client.V1DeleteOptions(grace_period_seconds=grace_seconds)}
        )
        self._resource(kind).delete(name=name, namespace=self.namespace, **options)

    def evict(self, pod: str) -> None:
        """Evict a pod, like `kubectl drain` does."""
        metadata = {"name": pod, "namespace": self.namespace}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))

    def in_namespace(self, namespace: str) -> "Kube":
        """Return a client of the same cluster for another namespace."""
        kube = Kube.__new__(Kube)
        kube.__dict__.update(self.__dict__)
        kube.namespace = namespace
        return kube

    def as_user(self, user: str) -> "Kube":
        """Return a client for the same namespace that impersonates a user, who is in no group."""
        kube = Kube(self.namespace)
        kube.user = user
        return kube
