"""Reads what is: once per reconcile, all kinds at the same time, fresh from the API server."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.client import Forbidden, KubernetesClient
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import secret_access
from mlflow_operator.model.secrets import contents, is_text
from mlflow_operator.model.server import SecretKey
from mlflow_operator.status.conditions import ConditionType, Reason
from mlflow_operator.status.errors import ConfigurationError

OWNED = (
    kinds.DEPLOYMENT,
    kinds.STATEFULSET,
    kinds.SERVICE,
    kinds.CONFIGMAP,
    kinds.SECRET,
    kinds.PVC,
    kinds.JOB,
    kinds.CRONJOB,
    kinds.POD,
    kinds.PDB,
)
"""The kinds that an MLflowServer owns; what the operator watches."""


@dataclass(frozen=True)
class ObservedState:
    """An MLflowServer and every object that carries its labels."""

    resource: Object
    owned: Mapping[tuple[str, str], Object]

    def get(self, kind: Kind, name: str) -> Object | None:
        """The object of that kind and name, if it carries our labels."""
        return self.owned.get((kind.kind, name))

    def of(self, kind: Kind, component: str | None = None) -> list[Object]:
        """All of a kind, or those of one component; in the order of their names."""
        return sorted(
            (
                found
                for (called, _), found in self.owned.items()
                if called == kind.kind
                and (component is None or found["metadata"]["labels"].get(labels.COMPONENT) == component)
            ),
            key=lambda found: str(found["metadata"]["name"]),
        )

    @property
    def status(self) -> Object:
        """The status as it is stored."""
        found: Object = self.resource.get("status") or {}
        return found

    def condition(self, kind: ConditionType) -> Object:
        """What the status says of one condition; empty if nothing yet."""
        said = self.status.get("conditions") or ()
        return next((condition for condition in said if condition.get("type") == kind.value), {})


async def observe(resource: Object, cluster: KubernetesClient) -> ObservedState:
    """Every owned object of `resource`, by label."""
    namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
    lists = await asyncio.gather(*(cluster.list(kind, namespace, labels.selector(name)) for kind in OWNED))
    return ObservedState(
        resource,
        {
            (found["kind"], found["metadata"]["name"]): found
            for found in (obj for each in lists for obj in each)
        },
    )


@dataclass
class Reader:
    """Reads what Secrets and ConfigMaps hold that a server in `namespace` names, each at most once per reconcile."""

    cluster: KubernetesClient
    namespace: str
    _read: dict[tuple[str, str, str], asyncio.Task[dict[str, str] | None]] = field(default_factory=dict)

    async def values(self, kind: Kind, name: str, namespace: str | None = None) -> dict[str, str] | None:
        """All values of a Secret or ConfigMap, None if there is none, or none that this server may know of."""
        key = (kind.kind, namespace or self.namespace, name)
        if key not in self._read:
            self._read[key] = asyncio.create_task(
                self._fetch(kind, *key[1:]), name=f"read {kind.kind} {name}"
            )
        return await asyncio.shield(self._read[key])

    async def value(self, wanted: SecretKey) -> str:
        """One value of a Secret. UserMistake says which Secret or key is missing and where it is named."""
        values = await self.values(kinds.SECRET, wanted.name, wanted.namespace)
        if values is None and wanted.namespace not in {None, self.namespace}:
            # the same words for both: nobody shall find out here what other namespaces hold
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f'There is no Secret "{wanted.name}" in namespace {wanted.namespace} that servers in namespace '
                f"{self.namespace} may use. Ask its owner to create it, or to name {self.namespace} in its annotation "
                f"{secret_access.ALLOWED}; or correct {wanted.field}.",
            )
        if values is None:
            raise ConfigurationError(
                Reason.SECRET_NOT_FOUND,
                f'There is no Secret "{wanted.name}" in namespace {self.namespace}. '
                f"Create it, or name another in {wanted.field}.name.",
            )
        if wanted.key not in values:
            raise ConfigurationError(
                Reason.SECRET_KEY_MISSING,
                f'Secret "{wanted.name}" has no key "{wanted.key}". Add it, or name another key in {wanted.field}.',
            )
        if not is_text(values[wanted.key]):
            raise ConfigurationError(
                Reason.SECRET_VALUE_INVALID,
                f'Key "{wanted.key}" of Secret "{wanted.name}" holds no text (UTF-8). Put the value there as text, or '
                f"name another key in {wanted.field}.",
            )
        return values[wanted.key]

    async def optional(self, wanted: SecretKey | None) -> str | None:
        """As `value`; None where nothing is asked for."""
        return None if wanted is None else await self.value(wanted)

    async def _fetch(self, kind: Kind, namespace: str, name: str) -> dict[str, str] | None:
        try:
            found = await self.cluster.get(kind, namespace, name)
        except Forbidden:
            if namespace == self.namespace:
                raise
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f'The operator itself may not read Secret "{name}" in namespace {namespace}. Whoever installed it can '
                "name that Secret in its chart's value adminSecrets.",
            ) from None
        if found is None or not secret_access.allows(found, self.namespace):
            return None
        if kind == kinds.SECRET:
            return contents(found)
        return {**(found.get("data") or {}), **(found.get("binaryData") or {})}
