"""Record of everything that a run exposes, deleted objects included: logs, events, objects and command lines.

A script on the node keeps the logs of containers (by hard links, which outlive the pods) and the arguments of
processes, sampled each second. Threads in this process watch the API server. Values of Secrets are only kept in memory.
"""

import base64
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import urllib3
from kubernetes import config
from kubernetes.client import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from tests.cluster import node
from tests.e2e.kube import API_VERSIONS, Kube, Object

MANAGED_BY_LABEL = ("app.kubernetes.io/managed-by", "mlflow-operator")
WATCHED_KINDS = (
    "MLflowServer",
    "Event",
    "Pod",
    "Deployment",
    "StatefulSet",
    "ReplicaSet",
    "Job",
    "Service",
    "ConfigMap",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "Secret",
)
LAST_APPLIED_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
"""`kubectl apply` stores the data of a Secret in this annotation. That is the user's choice, not a leak."""

MIN_SUBSTRING_CHARS = 8
"""Minimum length of a user's value that is not a substring of a generated value by chance."""

SEARCHED_LABEL = "mlflow-operator.dev/e2e-searched"
"""Label of a test's Secret whose values are searched like generated ones: the password of a user, for example."""

BASIC_AUTH_TYPE, AUTHORIZATION = "kubernetes.io/basic-auth", "authorization"
"""Type of a Secret with a user name and a password, and the description of its value in the header Authorization."""

ROTATION_KEYS = {"nextUsername", "previousUsername", "nextRotatedAt", "rotatedAt"}
ENCRYPTION_KEYS = {
    "passphrase-version",
    "next-passphrase-version",
    "passphrase-rotated-at",
    "next-passphrase-rotated-at",
}
PUBLIC_KEYS = {"username", "host", "port", "dbname", "endpoint", "bucket", *ROTATION_KEYS, *ENCRYPTION_KEYS}
"""Keys of searched Secrets whose values are not secret."""

NAME_KEYS = {"username", "user"}
"""Keys of users' Secrets with names. A generated value may contain one: every URI contains the superuser `postgres`."""

NODE_FOLDER = "/var/log/mlflow-operator-e2e"
NODE_SCRIPT = f"""
rm -rf {NODE_FOLDER}; mkdir -p {NODE_FOLDER}/pods; : >{NODE_FOLDER}/arguments
while :; do
  cp -aln /var/log/pods/. {NODE_FOLDER}/pods/ 2>/dev/null
  grep -ahz '' /proc/[0-9]*/cmdline 2>/dev/null | sort -zu - {NODE_FOLDER}/arguments -o {NODE_FOLDER}/arguments
  read -t 1 && continue
  [ $? -gt 128 ] || exit
done
"""
"""Ends when its stdin is closed, so it cannot outlive the test run."""


@dataclass
class Record:
    """Record of one session, between `start` and `stop`."""

    kube: Kube
    _places_by_text: dict[str, str] = field(default_factory=dict)
    _generated_values: dict[str, str] = field(default_factory=dict, repr=False)
    _user_values: set[str] = field(default_factory=set, repr=False)
    _user_names: set[str] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _node_process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start recording."""
        self._node_process = subprocess.Popen(
            ["docker", "exec", "-i", node.CONTAINER, "bash", "-c", NODE_SCRIPT],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        api = DynamicClient(config.new_client_from_config(str(self.kube.settings.kubeconfig)))
        for kind in WATCHED_KINDS:
            threading.Thread(target=self._watch, args=(api, kind), name=f"record {kind}", daemon=True).start()

    def stop(self) -> None:
        """Stop recording. Keeps what was read from the API server, and deletes the files on the node."""
        self._stopped.set()
        if self._node_process and self._node_process.stdin:
            self._node_process.stdin.close()
            self._node_process.wait(timeout=60)
        self.kube.node_command("rm", "-rf", NODE_FOLDER)

    def generated_values(self) -> dict[str, str]:
        """Return every searched value by its Secret and key, without values that tests gave to a server."""
        with self._lock:
            generated, names = dict(self._generated_values), set(self._user_names)
            user_values = set(self._user_values)
        long_values = [value for value in user_values if len(value) >= MIN_SUBSTRING_CHARS]
        return {
            name: value
            for name, value in generated.items()
            if value
            and not any(value in user_value for user_value in user_values | names)
            and not any(user_value in value for user_value in long_values)
        }

    def leaks(self) -> list[str]:
        """Return which generated values were found where, plain or in base64. Does not contain the values."""
        encodings = {name: (value, in_base64(value)) for name, value in self.generated_values().items()}
        if not self.places_with(*(text for texts in encodings.values() for text in texts)):
            return []
        return [
            f"{name} in {place}" for name, texts in encodings.items() for place in self.places_with(*texts)
        ]

    def places_with(self, *texts: str) -> list[str]:
        """Return all places that contained any of these texts, also as part of a longer text."""
        with self._lock:
            places_by_text = dict(self._places_by_text)
        all_text = "\n".join(places_by_text)
        if any(text in all_text for text in texts):
            places = {
                place
                for recorded_text, place in places_by_text.items()
                if any(text in recorded_text for text in texts)
            }
        else:
            places = set()
        return [*sorted(places), *self._places_on_node(texts)]

    def operator_lines(self, since: str = "") -> list[str]:
        """Return the log lines of all operator containers since a time (RFC 3339), deleted pods included."""
        logs = self.kube.node_command("sh", "-c", f"cat {NODE_FOLDER}/pods/mlflow-operator*/*/*.log")
        # the container runtime prefixes each line with a time, a stream and a flag
        lines = (line.split(" ", 3) for line in logs.splitlines())
        return [parts[-1] for parts in lines if parts[0] >= since]

    def _places_on_node(self, texts: Iterable[str]) -> list[str]:
        # by standard input, because command-line arguments are recorded
        done = subprocess.run(
            ["docker", "exec", "-i", node.CONTAINER, "grep", "-rlaFf", "-", NODE_FOLDER],
            input="\n".join(texts), text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode in {0, 1}, done.stderr
        return sorted(place.removeprefix(f"{NODE_FOLDER}/") for place in done.stdout.splitlines())

    def _watch(self, api: DynamicClient, kind: str) -> None:
        while not self._stopped.is_set():
            try:
                # A watch without a resource version begins with all existing objects, so it is simply restarted.
                resource = api.resources.get(api_version=API_VERSIONS.get(kind, "v1"), kind=kind)
                for event in resource.watch(timeout=300):
                    with self._lock:
                        self._add(kind, event["raw_object"])
                    if self._stopped.is_set():
                        return
            except (ApiException, ResourceNotFoundError, urllib3.exceptions.HTTPError, OSError, ValueError):
                # in a new cluster, MLflowServer is unknown before the operator is installed
                self._stopped.wait(0.5)

    def _add(self, kind: str, obj: Object) -> None:
        meta = obj.get("metadata") or {}
        place = f"{kind} {meta.get('namespace')}/{meta.get('name')}"
        if kind == "Secret":
            if obj.get("type") == "helm.sh/release.v1":
                return
            labels = meta.get("labels") or {}
            searched = labels.get(MANAGED_BY_LABEL[0]) == MANAGED_BY_LABEL[1] or SEARCHED_LABEL in labels
            values = {
                key: base64.b64decode(encoded).decode(errors="replace").strip()
                for key, encoded in (obj.get("data") or {}).items()
            }
            for key, value in values.items():
                if not searched and value:
                    (self._user_names if key in NAME_KEYS else self._user_values).add(value)
                elif searched and value and key not in PUBLIC_KEYS:
                    self._generated_values[f"{place} {key}"] = value
            if searched and obj.get("type") == BASIC_AUTH_TYPE:
                # HTTP clients send both in one string, which does not contain the password's own encoding.
                login = f"{values.get('username')}:{values.get('password')}"
                self._generated_values[f"{place} {AUTHORIZATION}"] = in_base64(login)
            annotations = {
                key: text
                for key, text in (meta.get("annotations") or {}).items()
                if key != LAST_APPLIED_ANNOTATION
            }
            obj = {"metadata": {**meta, "annotations": annotations}}
        for text in strings_in(obj):
            self._places_by_text.setdefault(text, place)


def in_base64(value: str) -> str:
    """Encode like a Secret's data."""
    return base64.b64encode(value.encode()).decode()


def strings_in(value: Any) -> Iterator[str]:
    """Yield every string in an object, the names of annotations included."""
    match value:
        case dict():
            for key, inner in value.items():
                yield str(key)
                yield from strings_in(inner)
        case list():
            for inner in value:
                yield from strings_in(inner)
        case str():
            yield value
