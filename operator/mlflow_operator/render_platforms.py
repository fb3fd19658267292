"""The platforms of `mlflow-operator render`: which one a server would use, which defaults it would take, and whether
it violates a policy, without a cluster.

Platforms and namespaces are manifests. The rules are those of `model.platform_choice`, `model.server_defaults` and
`model.platform_policy`, which the operator applies to what it reads from the cluster.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow_operator import api
from mlflow_operator.api import crd, mlflowplatform
from mlflow_operator.api.resource import InvalidResource
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import platform_choice, platform_policy, server_defaults
from mlflow_operator.model.platform import Part, Platform, PlatformUse, resolve_platform
from mlflow_operator.model.platform_choice import FIELDS, Request
from mlflow_operator.model.versions import Images
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_NAME_LABEL = "kubernetes.io/metadata.name"
"""Label with the name of the namespace, which Kubernetes sets on every namespace."""

_UNKNOWN_UID = "NAMESPACE-UID"
"""Replaces the uid of the namespace, which is only known in the cluster. No printed object contains it."""


@dataclass(frozen=True)
class Choice:
    """What a server would use of a platform, and the server with the defaults that it would take.

    `version`: the version among these defaults, which does not apply to a server with another image; empty if there is
    none. `notes` are for the user.
    """

    use: PlatformUse | None
    server: api.MLflowServer
    version: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Input:
    """The platforms by name, and the labels of the namespaces for which there is a manifest."""

    platforms: Mapping[str, Platform]
    namespaces: Mapping[str, Mapping[str, str]]

    def choose(self, server: api.MLflowServer, recorded_defaults: Object) -> Choice:
        """Return what a server would use of a platform, and take of its defaults.

        `recorded_defaults` are those that an existing server took: `status.platformDefaults`, empty if there are none.
        Raises ConfigurationError if it would wait for a platform, if its platform is not in the input, or if it
        violates a policy.
        """
        requested = platform_choice.request(server)
        namespace = server.metadata.namespace
        platform, notes = None, []
        if requested:
            platform = self._named(requested) if requested.name else self._default(requested, namespace)
            if platform is None:
                notes.append(self._note_about_no_platform(namespace))
            elif self._selects(platform, namespace) is None:
                notes.append(_note_about_the_selector(platform, namespace))
            else:
                platform_choice.allowed(platform, namespace, self._labels(namespace))
        parts = requested.parts(platform) if requested and platform else frozenset()
        taken, note = recorded_defaults, ""
        if platform_choice.takes_defaults(server):
            taken, note = self._taken_defaults(server, platform)
        images = tuple(platform_policy.default_images_of(server.spec, parts, Images(), taken))
        notes += [*self._check_policies(server, platform, parts, images), note]
        return Choice(
            PlatformUse(platform, parts, _UNKNOWN_UID) if platform and parts else None,
            server_defaults.apply(server, taken),
            str(taken.get("version") or ""),
            tuple(filter(None, notes)),
        )

    def _check_policies(
        self,
        server: api.MLflowServer,
        chosen: Platform | None,
        parts: frozenset[Part],
        images: Iterable[tuple[str, str]],
    ) -> tuple[str, str]:
        """Raise ConfigurationError if the server violates a policy. Return notes about violations that are not certain.

        `images` are default images. The operator may be configured to use others.
        """
        namespace = server.metadata.namespace
        # Its age is not known, so that it counts as the oldest server of the namespace.
        created = {server.metadata.name: ""}
        selecting, possible = [], []
        for platform in self.platforms.values():
            selects = self._selects(platform, namespace)
            if selects or (selects is None and platform is chosen):
                selecting.append(platform)
            elif selects is None:
                possible.append(platform)
        message = platform_policy.violations(server, selecting, parts, created, ())
        if message:
            raise ConfigurationError(Reason.POLICY_VIOLATION, message)
        default_images = platform_policy.violations(server, selecting, parts, created, images)
        note = platform_policy.violations(server, possible, parts, created, ())
        return (
            f"If the chart of the operator configures no other images: {default_images}"
            if default_images
            else "",
            f"If the platform selects namespace {namespace}: {note} To evaluate its spec.namespaceSelector, add the "
            "Namespace with its labels to the input."
            if note
            else "",
        )

    def _taken_defaults(self, server: api.MLflowServer, platform: Platform | None) -> tuple[Object, str]:
        """Return the defaults that a new server takes, as in its status, and a note, which can be empty."""
        namespace = server.metadata.namespace
        sources = [platform] if platform else self._candidates(namespace)
        taken = server_defaults.taken(server.spec, sources[0]) if len(sources) == 1 else {}
        is_assumed = taken and not platform and self._selects(sources[0], namespace) is None
        return taken, _note_about_the_selector(sources[0], namespace) if is_assumed else ""

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
            platform.name: self._selects(platform, namespace) for platform in self._candidates(namespace)
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

    def _candidates(self, namespace: str) -> list[Platform]:
        """Return the default platforms that select the namespace, or may select it."""
        return [
            platform
            for platform in self.platforms.values()
            if platform.is_default and self._selects(platform, namespace) is not False
        ]

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


def _note_about_the_selector(platform: Platform, namespace: str) -> str:
    return (
        f'The spec.namespaceSelector of MLflowPlatform "{platform.name}" is assumed to select namespace {namespace}. '
        "To evaluate it, add the Namespace with its labels to the input."
    )


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
