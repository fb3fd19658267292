"""docs/reference/roles.md: what users and the operator's account may do, and the tables with which this is tested.

tests/integration/test_user_roles.py compares these with the answers of an API server, with the roles of Kubernetes and
of the operator's chart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import yaml

from mlflow_operator.kube.objects import Object
from tests.reference.markdown import NOTICE, table

GROUP = "mlflow-operator.dev"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
READ = ("get", "list", "watch")
NONE: tuple[str, ...] = ()

PLATFORM_TEAM = "mlflow-platform-team"
PLATFORM_NAMESPACE = "mlflow-platform"
PLATFORM_TEAM_ROLE: Object = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": PLATFORM_TEAM},
    "rules": [
        {"apiGroups": [GROUP], "resources": ["mlflowplatforms"], "verbs": ["*"]},
        {"apiGroups": [GROUP], "resources": ["mlflowservers"], "verbs": [*READ]},
    ],
}
"""ClusterRole for those who write platforms without being cluster administrators. The chart does not contain it."""


class Subject(Enum):
    """Who has a role. The value is the column of the table."""

    CLUSTER_ADMIN = "cluster administrator"
    PLATFORM = "platform team"
    ADMIN = "`admin`"
    EDIT = "`edit`"
    VIEW = "`view`"
    WRITER = "`mlflow-operator-edit`"
    OPERATOR = "operator"


CLUSTER_ROLES: Mapping[Subject, str] = {
    Subject.ADMIN: "admin",
    Subject.EDIT: "edit",
    Subject.VIEW: "view",
    Subject.WRITER: "mlflow-operator-edit",
}
"""ClusterRoles that are bound to users in a namespace."""


@dataclass(frozen=True)
class Resource:
    """A row of the table: a resource and the verbs that each subject may use.

    `name`: resource of the API with its subresource. `elsewhere`: in another namespace than the one in which the roles
    are bound. `everywhere`: the roles are bound with a ClusterRoleBinding. `aggregated`: with
    `userRoles.aggregateToEdit`. Subjects that are not in `verbs` may use none.
    """

    title: str
    group: str
    name: str
    verbs: Mapping[Subject, tuple[str, ...]]
    elsewhere: bool = False
    everywhere: bool = False
    aggregated: bool = False

    def allowed(self, subject: Subject) -> set[str]:
        """The verbs that the subject may use. A cluster administrator may use all."""
        return {*VERBS} if subject is Subject.CLUSTER_ADMIN else {*self.verbs.get(subject, NONE)}


_OPERATOR_ON_SERVERS = (*READ, "patch")
_READERS = dict.fromkeys((Subject.PLATFORM, Subject.ADMIN, Subject.EDIT, Subject.VIEW), READ)
_SERVER_VERBS = {**_READERS, Subject.WRITER: VERBS, Subject.OPERATOR: _OPERATOR_ON_SERVERS}

RESOURCES = (
    Resource("MLflowServers", GROUP, "mlflowservers", _SERVER_VERBS),
    Resource(
        "MLflowServers, with `userRoles.aggregateToEdit: true`",
        GROUP,
        "mlflowservers",
        {**_SERVER_VERBS, Subject.ADMIN: VERBS, Subject.EDIT: VERBS},
        aggregated=True,
    ),
    Resource("status of MLflowServers", GROUP, "mlflowservers/status", {Subject.OPERATOR: ("patch",)}),
    Resource(
        "MLflowServers in other namespaces",
        GROUP,
        "mlflowservers",
        {Subject.PLATFORM: READ, Subject.OPERATOR: _OPERATOR_ON_SERVERS},
        elsewhere=True,
    ),
    Resource(
        "MLflowPlatforms",
        GROUP,
        "mlflowplatforms",
        {Subject.PLATFORM: VERBS, Subject.OPERATOR: (*READ, "patch")},
    ),
    Resource(
        "MLflowPlatforms, with ClusterRoleBindings",
        GROUP,
        "mlflowplatforms",
        {**_READERS, Subject.PLATFORM: VERBS, Subject.OPERATOR: (*READ, "patch")},
        everywhere=True,
    ),
    Resource("status of MLflowPlatforms", GROUP, "mlflowplatforms/status", {Subject.OPERATOR: ("patch",)}),
    Resource(
        "Secrets",
        "",
        "secrets",
        {
            Subject.ADMIN: VERBS,
            Subject.EDIT: VERBS,
            Subject.OPERATOR: ("get", "create", "patch", "delete"),
        },
    ),
    Resource(
        "Secrets in other namespaces",
        "",
        "secrets",
        {Subject.OPERATOR: ("get", "create", "patch", "delete")},
        elsewhere=True,
    ),
    Resource(
        f"Secrets in `{PLATFORM_NAMESPACE}`",
        "",
        "secrets",
        {Subject.PLATFORM: VERBS, Subject.OPERATOR: ("get", "create", "patch", "delete")},
    ),
    Resource(
        "Pods",
        "",
        "pods",
        {Subject.ADMIN: VERBS, Subject.EDIT: VERBS, Subject.VIEW: READ, Subject.OPERATOR: READ},
    ),
    Resource(
        "RoleBindings",
        "rbac.authorization.k8s.io",
        "rolebindings",
        {Subject.ADMIN: VERBS},
    ),
)

_INTRODUCTION = f"""\
# Roles and permissions

{NOTICE}

The table shows what an API server allows with the roles of Kubernetes and of the operator's chart; it is tested. If a
row names no other namespace, it is about the namespace in which the roles are bound with RoleBindings.

- **all**: {", ".join(VERBS[:-1])} and {VERBS[-1]}. **read**: {", ".join(READ[:-1])} and {READ[-1]}. **no**: none.
- `admin`, `edit` and `view` are ClusterRoles of Kubernetes. `mlflow-operator-edit` is the chart's ClusterRole for users
  who manage MLflowServers.
- Cluster administrators write MLflowPlatforms. The chart contains no ClusterRole for a platform team: see
  [Role of the platform team](#role-of-the-platform-team).
- The table does not show that the operator may only change and delete objects that belong to an MLflowServer: see
  [Admission policy](../security.md#admission-policy).
"""

_PLATFORM_TEAM = f"""\
## Role of the platform team

Bind this ClusterRole with a ClusterRoleBinding, and `edit` with a RoleBinding in the namespace of the administrators'
Secrets. A user who may write MLflowPlatforms decides to which hosts the operator sends the Secrets that it may read:
grant it only to users whom you trust with these.

```yaml
{yaml.safe_dump(PLATFORM_TEAM_ROLE, sort_keys=False)}```
"""


def page() -> str:
    """Return the page."""
    rows = [(resource.title, *(_cell(resource, subject) for subject in Subject)) for resource in RESOURCES]
    header = ("Resource", *(subject.value for subject in Subject))
    return "\n".join([_INTRODUCTION, table(header, rows), _PLATFORM_TEAM])


def _cell(resource: Resource, subject: Subject) -> str:
    allowed = resource.allowed(subject)
    names = {frozenset(VERBS): "all", frozenset(READ): "read", frozenset(): "no"}
    return names.get(frozenset(allowed)) or ", ".join(verb for verb in VERBS if verb in allowed)
