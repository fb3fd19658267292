"""Which Secrets and ConfigMaps of the owner's a server reads, found in its pod's own manifest.

Reading the manifest instead of the spec means that nothing can be forgotten: whatever the pods will mount or
take as environment is there, however it came in.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mlflow_operator.kube.kinds import CONFIGMAP, SECRET, Kind
from mlflow_operator.kube.objects import Object


@dataclass(frozen=True, order=True)
class Reference:
    """An object that pods read. `key` None: all of it. Without an `optional` one pods do not start."""

    kind: str
    name: str
    key: str | None
    optional: bool

    @property
    def resource(self) -> Kind:
        """How the API server calls it."""
        return SECRET if self.kind == "Secret" else CONFIGMAP


def of_pod(spec: Object) -> frozenset[Reference]:
    """Every Secret and ConfigMap that a pod with this spec reads."""
    return frozenset(_of_pod(spec))


def _of_pod(spec: Object) -> Iterator[Reference]:
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for variable in container.get("env", ()):
            source = variable.get("valueFrom") or {}
            yield from _one("Secret", source.get("secretKeyRef"), "name")
            yield from _one("ConfigMap", source.get("configMapKeyRef"), "name")
        for source in container.get("envFrom", ()):
            yield from _one("Secret", source.get("secretRef"), "name")
            yield from _one("ConfigMap", source.get("configMapRef"), "name")
    for volume in spec.get("volumes", ()):
        for source in (volume, *(volume.get("projected") or {}).get("sources", ())):
            secret = source.get("secret")
            yield from _one("Secret", secret, "secretName" if "secretName" in (secret or {}) else "name")
            yield from _one("ConfigMap", source.get("configMap"), "name")


def _one(kind: str, source: Object | None, name: str) -> Iterator[Reference]:
    if not source or not source.get(name):
        return
    optional = bool(source.get("optional", False))
    keys = [source["key"]] if "key" in source else [item["key"] for item in source.get("items") or ()]
    for key in keys or [None]:
        yield Reference(kind, source[name], key, optional)
