"""What the operator's account must be allowed, to do all that it may be asked to.

The chart grants it; tests/chart holds this list against what the chart grants.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

GROUP = "mlflow-operator.dev"

_READ = ("get", "list", "watch")
_APPLY = (*_READ, "create", "patch")
_OWN = (*_APPLY, "delete")


@dataclass(frozen=True)
class Permission:
    """One verb on one resource. `name`: on the object of this name alone. `namespace` None: in all of them."""

    group: str
    resource: str
    verb: str
    namespace: str | None = None
    name: str = ""

    @property
    def on(self) -> str:
        """The resource as kubectl writes it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


IN_EACH_NAMESPACE: Mapping[tuple[str, str], tuple[str, ...]] = {
    (GROUP, "mlflowservers"): (*_READ, "patch"),
    (GROUP, "mlflowservers/status"): ("patch",),
    (GROUP, "mlflowservers/finalizers"): ("update",),
    ("", "secrets"): _OWN,
    ("", "configmaps"): _OWN,
    ("", "services"): _OWN,
    ("", "persistentvolumeclaims"): _OWN,
    ("", "namespaces"): ("get",),
    ("", "pods"): _READ,
    ("", "events"): ("list", "create"),
    ("apps", "deployments"): _APPLY,
    ("apps", "statefulsets"): _OWN,
    ("batch", "jobs"): (*_READ, "create", "delete"),
    ("batch", "cronjobs"): _OWN,
    ("policy", "poddisruptionbudgets"): _OWN,
    ("postgresql.cnpg.io", "clusters"): ("get",),
}
"""In each namespace that is watched."""

ANYWHERE: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): ("list", "watch"),
}
"""Where all namespaces are watched."""

TO_DELETE_DATA = {("", "secrets", "delete"), ("", "persistentvolumeclaims", "delete")}
"""What the chart's `deletion.allowed: false` withholds on purpose."""


def _spelled(rules: Mapping[tuple[str, str], tuple[str, ...]], namespace: str | None) -> Iterator[Permission]:
    for (group, resource), verbs in rules.items():
        for verb in verbs:
            yield Permission(group, resource, verb, namespace)


def needed(watched: tuple[str, ...], home: str, lease: str) -> tuple[Permission, ...]:
    """All of an operator that watches these namespaces (none: all) and keeps its Lease in `home`."""
    everywhere = () if watched else tuple(_spelled(ANYWHERE, None))
    rules = tuple(p for namespace in watched or (None,) for p in _spelled(IN_EACH_NAMESPACE, namespace))
    group, resource = "coordination.k8s.io", "leases"
    # what does not exist yet has no name to grant
    leases = (
        Permission(group, resource, "create", home),
        Permission(group, resource, "get", home, lease),
        Permission(group, resource, "update", home, lease),
    )
    return (*rules, *everywhere, *leases)
