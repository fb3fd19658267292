"""The platforms of `mlflow-operator render`: which one a server would use, without a cluster.

Platforms and namespaces are manifests. The rules are those of `model.platform_choice`, which the operator applies to
what it reads from the cluster.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow_operator import api
from mlflow_operator.api import crd, mlflowplatform
from mlflow_operator.api.resource import InvalidResource
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import platform_choice
from mlflow_operator.model.platform import Platform, PlatformUse, resolve_platform
from mlflow_operator.model.platform_choice import FIELDS, Request
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_NAME_LABEL = "kubernetes.io/metadata.name"
"""Label with the name of the namespace, which Kubernetes sets on every namespace."""

_UNKNOWN_UID = "NAMESPACE-UID"
"""Replaces the uid of the namespace, which is only known in the cluster. No printed object contains it."""


@dataclass(frozen=True)
class Input:
    """The platforms by name, and the labels of the namespaces for which there is a manifest."""

    platforms: Mapping[str, Platform]
    namespaces: Mapping[str, Mapping[str, str]]

    def choose(self, server: api.MLflowServer) -> tuple[PlatformUse | None, str]:
        """Return what a server would use of a platform, and a note for the user, which can be empty.

        Raises ConfigurationError if it would wait for a platform, or if its platform is not in the input.
        """
        requested = platform_choice.request(server)
        if requested is None:
            return None, ""
        namespace = server.metadata.namespace
        platform = self._named(requested) if requested.name else self._default(requested, namespace)
        if platform is None:
            return None, self._note_about_no_platform(namespace)
        parts = requested.parts(platform)
        use = PlatformUse(platform, parts, _UNKNOWN_UID) if parts else None
        if self._selects(platform, namespace) is None:
            return use, (
                f'The spec.namespaceSelector of MLflowPlatform "{platform.name}" is assumed to select namespace '
                f"{namespace}. To evaluate it, add the Namespace with its labels to the input."
            )
        platform_choice.allowed(platform, namespace, self._labels(namespace))
        return use, ""

    def _named(self, requested: Request) -> Platform:
        platform = self.platforms.get(requested.name or "")
        if platform is None:
            raise ConfigurationError(
                Reason.PLATFORM_NOT_FOUND,
                f'The server uses MLflowPlatform "{requested.name}", which the input does not contain. Pass its '
                "manifest with --platform FILE.",
            )
        return platform

    def _default(self, requested: Request, namespace: str) -> Platform | None:
        candidates = {
            platform.name: self._selects(platform, namespace)
            for platform in self.platforms.values()
            if platform.is_default and self._selects(platform, namespace) is not False
        }
        if len(candidates) > 1:
            names = " and ".join(f'"{name}"' for name in sorted(candidates))
            add = (
                "" if all(candidates.values()) else "Add the Namespace with its labels to the input, or name "
            )
            raise ConfigurationError(
                Reason.DEFAULT_PLATFORM_CONFLICT,
                f"The default platforms {names} {'select' if not add else 'may select'} namespace {namespace}, and at "
                f"most one can be the default there. {add or 'Name '}one of them in spec.platformRef.",
            )
        if candidates:
            return self.platforms[next(iter(candidates))]
        if requested.is_required:
            field = FIELDS[min(requested.explicit)]
            raise ConfigurationError(
                Reason.PLATFORM_NOT_FOUND,
                f"{field}.platform requests the default platform, and the input contains none that selects namespace "
                f"{namespace}. Pass its manifest with --platform FILE, or name a platform in spec.platformRef.",
            )
        return None

    def _note_about_no_platform(self, namespace: str) -> str:
        if not self.platforms:
            return ""
        return (
            f"The server uses no platform: no MLflowPlatform in the input is the default of namespace {namespace}. To "
            "use one that is not the default, name it in spec.platformRef."
        )

    def _labels(self, namespace: str) -> Mapping[str, str]:
        return {**self.namespaces.get(namespace, {}), _NAME_LABEL: namespace}

    def _selects(self, platform: Platform, namespace: str) -> bool | None:
        """Whether the platform selects the namespace, None if that depends on labels that the input does not contain.

        Without a manifest of the namespace, only the label with its name is known.
        """
        if namespace not in self.namespaces and any(
            key != _NAME_LABEL for key, _, _ in platform.selector.requirements
        ):
            return None
        return platform.selects(self._labels(namespace))


def read(documents: Iterable[Object]) -> Input:
    """Read the MLflowPlatforms and Namespaces in `documents`; others are ignored.

    Raises InvalidResource. The message begins with the name of the platform.
    """
    platforms: dict[str, Platform] = {}
    namespaces: dict[str, Mapping[str, str]] = {}
    for document in documents:
        metadata = document.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        if document.get("kind") == mlflowplatform.KIND:
            platform = _parse(document, str(metadata.get("name") or "without a name"))
            if platforms.setdefault(platform.name, platform) != platform:
                raise InvalidResource(
                    f"{mlflowplatform.KIND} {platform.name} has two different manifests. Remove one of them."
                )
        elif document.get("kind") == "Namespace" and document.get("apiVersion") == "v1":
            labels = metadata.get("labels")
            namespaces[str(metadata.get("name"))] = labels if isinstance(labels, dict) else {}
    return Input(platforms, namespaces)


def _parse(document: Object, name: str) -> Platform:
    unknown = crd.unknown_fields(document, crd.PLATFORM)
    if unknown:
        raise InvalidResource(
            f"{mlflowplatform.KIND} {name}: unknown field {', '.join(unknown)}. Correct the name or remove it."
        )
    try:
        return resolve_platform(mlflowplatform.parse(document))
    except InvalidResource as error:
        raise InvalidResource(f"{mlflowplatform.KIND} {name}: {error}") from None
