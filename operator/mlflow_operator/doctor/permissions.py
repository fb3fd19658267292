"""The permissions that the operator's account needs for all features.

The chart grants them; tests/chart compares this list with the chart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlflow_operator.model.platform import Platform

GROUP = "mlflow-operator.dev"

_READ = ("get", "list", "watch")
_OWN = (*_READ, "create", "patch", "delete")


@dataclass(frozen=True)
class Permission:
    """One verb on one resource. `name` empty: all objects. `namespace` None: all namespaces."""

    group: str
    resource: str
    verb: str
    namespace: str | None = None
    name: str = ""

    @property
    def qualified_resource(self) -> str:
        """The resource as kubectl writes it, for example `deployments.apps`."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


PLATFORM_RULES: Mapping[tuple[str, str], tuple[str, ...]] = {
    (GROUP, "mlflowplatforms"): _READ,
    (GROUP, "mlflowplatforms/status"): ("patch",),
}
"""Permissions for platforms, which are cluster-scoped, also if the operator only watches some namespaces."""

_PLATFORM_EVENTS_NAMESPACE = "default"
"""Namespace of Events about cluster-scoped objects."""

NAMESPACE_RULES: Mapping[tuple[str, str], tuple[str, ...]] = {
    (GROUP, "mlflowservers"): (*_READ, "patch"),
    (GROUP, "mlflowservers/status"): ("patch",),
    (GROUP, "mlflowservers/finalizers"): ("update",),
    ("", "secrets"): ("get", "create", "patch", "delete"),
    ("", "configmaps"): _OWN,
    ("", "services"): _OWN,
    ("", "persistentvolumeclaims"): _OWN,
    ("", "namespaces"): ("get",),
    ("", "pods"): _READ,
    ("", "events"): ("list", "create"),
    ("apps", "deployments"): _OWN,
    ("apps", "statefulsets"): _OWN,
    ("batch", "jobs"): _OWN,
    ("batch", "cronjobs"): _OWN,
    ("policy", "poddisruptionbudgets"): _OWN,
    ("postgresql.cnpg.io", "clusters"): ("get",),
}
"""Permissions in each watched namespace."""

CLUSTER_RULES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): ("list", "watch"),
    ("", "namespaces"): ("list",),
    (GROUP, "mlflowplatforms"): ("patch",),
}
"""Permissions that are only needed if the operator watches all namespaces."""

DATA_DELETION = {("", "secrets", "delete"), ("", "persistentvolumeclaims", "delete")}
"""Permissions that the chart's value `deletion.allowed: false` intentionally omits."""


def _permissions(
    rules: Mapping[tuple[str, str], tuple[str, ...]], namespace: str | None
) -> Iterator[Permission]:
    for (group, resource), verbs in rules.items():
        for verb in verbs:
            yield Permission(group, resource, verb, namespace)


def required_permissions(
    watched_namespaces: tuple[str, ...], operator_namespace: str, lease_name: str
) -> tuple[Permission, ...]:
    """All permissions of an operator that watches these namespaces (empty: all), with its Lease in its namespace."""
    cluster_permissions = (
        (Permission("", "events", "create", _PLATFORM_EVENTS_NAMESPACE),)
        if watched_namespaces
        else tuple(_permissions(CLUSTER_RULES, None))
    )
    platform_permissions = tuple(_permissions(PLATFORM_RULES, None))
    namespace_permissions = tuple(
        permission
        for namespace in watched_namespaces or (None,)
        for permission in _permissions(NAMESPACE_RULES, namespace)
    )
    group, resource = "coordination.k8s.io", "leases"
    # RBAC cannot restrict `create` to a name.
    lease_permissions = (
        Permission(group, resource, "create", operator_namespace),
        Permission(group, resource, "get", operator_namespace, lease_name),
        Permission(group, resource, "update", operator_namespace, lease_name),
    )
    return (*namespace_permissions, *cluster_permissions, *platform_permissions, *lease_permissions)


def platform_secret_permissions(platform: Platform) -> tuple[Permission, ...]:
    """Permissions to read the Secrets of a platform, for an operator that does not watch all namespaces."""
    database, store = platform.database, platform.artifacts
    keys = (
        *((database.username, database.password, database.ca) if database else ()),
        *((store.admin.access_key, store.admin.secret_key, store.ca) if store else ()),
    )
    names = sorted({key.name for key in keys if key})
    return tuple(Permission("", "secrets", "get", platform.secrets_namespace, name) for name in names)


def is_platform_secret(permission: Permission) -> bool:
    """Whether the permission is one of `platform_secret_permissions`."""
    return permission.resource == "secrets" and bool(permission.name)
