"""Which servers a changed MLflowPlatform concerns, so that they are reconciled before their resync."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION
from mlflow_operator.kube.objects import NamespacedName

_Version = tuple[object, ...]


@dataclass
class PlatformUsers:
    """The platforms that each server uses or waits for, as of its last reconcile.

    Nothing is requested for it. After a start it is empty, but then every server is due anyway.
    """

    _platforms: dict[NamespacedName, Collection[str]] = field(default_factory=dict)
    _versions: dict[str, _Version] = field(default_factory=dict)

    def record(self, server: NamespacedName, platforms: Collection[str]) -> None:
        """Remember which platforms concern a server."""
        if platforms:
            self._platforms[server] = platforms
        else:
            self._platforms.pop(server, None)

    def changed(self, platform: str, metadata: Mapping[str, Any]) -> list[NamespacedName]:
        """Return the servers that an event with these metadata of the platform concerns.

        There are none if only the status has changed, or if the watch has only started again.
        """
        annotations = metadata.get("annotations") or {}
        version = (metadata.get("uid"), metadata.get("generation"), annotations.get(DEFAULT_ANNOTATION))
        if self._versions.get(platform) == version:
            return []
        self._versions[platform] = version
        return self._users(platform)

    def deleted(self, platform: str) -> list[NamespacedName]:
        """Return the servers that the deletion of the platform concerns."""
        self._versions.pop(platform, None)
        return self._users(platform)

    def _users(self, platform: str) -> list[NamespacedName]:
        return [server for server, platforms in self._platforms.items() if platform in platforms]
