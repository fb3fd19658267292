"""What a whole run lets out: every log, event, object and command line, of things long gone, too.

The node keeps the logs of containers (by hard links, which outlive the pods) and the arguments of processes, looked
at each second; threads here watch the API server. Nothing is kept of Secrets but, in memory, their values.
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
from tests.e2e.kube import KINDS, Kube, Object

MANAGED = ("app.kubernetes.io/managed-by", "mlflow-operator")
WATCHED = (
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
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Whoever puts a Secret by `kubectl apply` leaves its data here; that is theirs to know."""

LONG = 8
"""Characters from which on a value that a test gave is not found in a generated one by chance."""

ROTATION = {"nextUsername", "previousUsername", "nextRotatedAt", "rotatedAt"}
OPEN = {"username", "host", "port", "dbname", "endpoint", "bucket", *ROTATION}
"""Keys of generated Secrets whose values are none."""

KEPT = "/var/log/mlflow-operator-e2e"
KEEPER = f"""
rm -rf {KEPT}; mkdir -p {KEPT}/pods; : >{KEPT}/arguments
while :; do
  cp -aln /var/log/pods/. {KEPT}/pods/ 2>/dev/null
  grep -ahz '' /proc/[0-9]*/cmdline 2>/dev/null | sort -zu - {KEPT}/arguments -o {KEPT}/arguments
  read -t 1 && continue
  [ $? -gt 128 ] || exit
done
"""
"""Ends when its input does, so it can't be left behind."""


@dataclass
class Record:
    """Of one session; `start` and `stop` it."""

    kube: Kube
    _texts: dict[str, str] = field(default_factory=dict)
    _generated: dict[str, str] = field(default_factory=dict, repr=False)
    _given: set[str] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event)
    _keeper: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """From now on."""
        self._keeper = subprocess.Popen(
            ["docker", "exec", "-i", node.CONTAINER, "bash", "-c", KEEPER],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        api = DynamicClient(config.new_client_from_config(str(self.kube.settings.kubeconfig)))
        for kind in WATCHED:
            threading.Thread(
                target=self._follow, args=(api, kind), name=f"record {kind}", daemon=True
            ).start()

    def stop(self) -> None:
        """Ends what was started; what was seen stays."""
        self._ended.set()
        if self._keeper and self._keeper.stdin:
            self._keeper.stdin.close()
            self._keeper.wait(timeout=10)
        self.kube.node_command("rm", "-rf", KEPT)

    def secrets(self) -> dict[str, str]:
        """Every value that was generated, by where it is kept; what a test gave to a server is none of them."""
        with self._lock:
            generated, all_given = dict(self._generated), set(self._given)
        return {
            name: value
            for name, value in generated.items()
            if value
            and not any(value in given or (len(given) >= LONG and given in value) for given in all_given)
        }

    def leaks(self) -> list[str]:
        """Which of them is where, plain or in base64; never a value."""
        forms = {name: (value, in_base64(value)) for name, value in self.secrets().items()}
        if not self.seen(*(form for both in forms.values() for form in both)):
            return []
        return [f"{name} in {place}" for name, both in forms.items() for place in self.seen(*both)]

    def seen(self, *texts: str) -> list[str]:
        """All places that held any of these texts, parts of longer ones included."""
        with self._lock:
            everything = dict(self._texts)
        whole = "\n".join(everything)
        if any(text in whole for text in texts):
            here = {place for kept, place in everything.items() if any(text in kept for text in texts)}
        else:
            here = set()
        return [*sorted(here), *self._on_the_node(texts)]

    def operator_lines(self, since: str = "") -> list[str]:
        """What every container of every operator wrote since a moment (RFC 3339), those that are gone included."""
        kept = self.kube.node_command("sh", "-c", f"cat {KEPT}/pods/mlflow-operator*/*/*.log")
        # the container runtime puts a time, a stream and a flag before each line
        lines = (line.split(" ", 3) for line in kept.splitlines())
        return [parts[-1] for parts in lines if parts[0] >= since]

    def _on_the_node(self, texts: Iterable[str]) -> list[str]:
        # by standard input, or they would be among the arguments themselves
        done = subprocess.run(
            ["docker", "exec", "-i", node.CONTAINER, "grep", "-rlaFf", "-", KEPT],
            input="\n".join(texts), text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode in {0, 1}, done.stderr
        return sorted(place.removeprefix(f"{KEPT}/") for place in done.stdout.splitlines())

    def _follow(self, api: DynamicClient, kind: str) -> None:
        while not self._ended.is_set():
            try:
                # Without a version a watch begins with all there is; so it is begun anew as often as it ends.
                resource = api.resources.get(api_version=KINDS.get(kind, "v1"), kind=kind)
                for event in resource.watch(timeout=300):
                    with self._lock:
                        self._take(kind, event["raw_object"])
                    if self._ended.is_set():
                        return
            except (ApiException, ResourceNotFoundError, urllib3.exceptions.HTTPError, OSError, ValueError):
                # in a new cluster our own kind is not known before the operator is installed
                self._ended.wait(0.5)

    def _take(self, kind: str, obj: Object) -> None:
        meta = obj.get("metadata") or {}
        place = f"{kind} {meta.get('namespace')}/{meta.get('name')}"
        if kind == "Secret":
            if obj.get("type") == "helm.sh/release.v1":
                return
            ours = (meta.get("labels") or {}).get(MANAGED[0]) == MANAGED[1]
            for key, coded in (obj.get("data") or {}).items():
                value = base64.b64decode(coded).decode(errors="replace").strip()
                if not ours and value:
                    self._given.add(value)
                elif ours and value and key not in OPEN:
                    self._generated[f"{place} {key}"] = value
            notes = {key: text for key, text in (meta.get("annotations") or {}).items() if key != APPLIED}
            obj = {"metadata": {**meta, "annotations": notes}}
        for text in leaves(obj):
            self._texts.setdefault(text, place)


def in_base64(value: str) -> str:
    """As a Secret's data would show it."""
    return base64.b64encode(value.encode()).decode()


def leaves(value: Any) -> Iterator[str]:
    """Every text in an object, annotations' names included; each is kept once, however often it is seen."""
    match value:
        case dict():
            for key, inner in value.items():
                yield str(key)
                yield from leaves(inner)
        case list():
            for inner in value:
                yield from leaves(inner)
        case str():
            yield value
