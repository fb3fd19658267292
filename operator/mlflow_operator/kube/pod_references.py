"""The Secrets and ConfigMaps that a pod reads: in an observed manifest, or in the settings of a user."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlflow_operator.kube.kinds import CONFIGMAP, SECRET, Kind
from mlflow_operator.kube.objects import Object


@dataclass(frozen=True, order=True)
class Reference:
    """Reference to a Secret or ConfigMap. `key` None means all keys.

    Pods do not start if a reference that is not `optional` cannot be resolved.
    """

    kind: str
    name: str
    key: str | None
    optional: bool

    @property
    def resource(self) -> Kind:
        """API kind of the referenced object."""
        return SECRET if self.kind == "Secret" else CONFIGMAP


def of_pod(spec: Object) -> frozenset[Reference]:
    """Return a reference for each Secret and ConfigMap key that a pod with this spec reads."""
    return frozenset(_references(spec))


def of_settings(
    env: Iterable[Object], env_from: Iterable[Object], volumes: Iterable[Object]
) -> frozenset[Reference]:
    """Return a reference for each Secret and ConfigMap key that variables and volumes of a user read."""
    return frozenset({*_of_variables(env, env_from), *_of_volumes(volumes)})


def _references(spec: Object) -> Iterator[Reference]:
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        yield from _of_variables(container.get("env", ()), container.get("envFrom", ()))
    yield from _of_volumes(spec.get("volumes", ()))


def _of_variables(env: Iterable[Object], env_from: Iterable[Object]) -> Iterator[Reference]:
    for variable in env:
        source = variable.get("valueFrom") or {}
        yield from _source_references("Secret", source.get("secretKeyRef"), "name")
        yield from _source_references("ConfigMap", source.get("configMapKeyRef"), "name")
    for source in env_from:
        yield from _source_references("Secret", source.get("secretRef"), "name")
        yield from _source_references("ConfigMap", source.get("configMapRef"), "name")


def _of_volumes(volumes: Iterable[Object]) -> Iterator[Reference]:
    for volume in volumes:
        for source in (volume, *(volume.get("projected") or {}).get("sources", ())):
            secret = source.get("secret")
            yield from _source_references(
                "Secret", secret, "secretName" if "secretName" in (secret or {}) else "name"
            )
            yield from _source_references("ConfigMap", source.get("configMap"), "name")


def _source_references(kind: str, source: Object | None, name_field: str) -> Iterator[Reference]:
    if not source or not source.get(name_field):
        return
    optional = bool(source.get("optional", False))
    keys = [source["key"]] if "key" in source else [item["key"] for item in source.get("items") or ()]
    for key in keys or [None]:
        yield Reference(kind, source[name_field], key, optional)
