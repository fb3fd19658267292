"""Watching: every event of a resource, or of anything it owns, puts the resource's key into the queue.

kopf lists, watches, reconnects and renews credentials. Only its `on.event` is used: any other handler would add
annotations, finalizers and patches of kopf's own to the objects.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import kopf

from mlflow_operator.controller.observe import OWNED
from mlflow_operator.core import kinds, labels
from mlflow_operator.core.kinds import Kind

Key = tuple[str, str]
"""Namespace and name of an MLflowServer."""


def registry(add: Callable[[Key], None]) -> kopf.OperatorRegistry:
    """Handlers that call `add` with the key of the server that an event concerns."""
    handlers = kopf.OperatorRegistry()

    async def resource(namespace: str | None, name: str | None, **_: Any) -> None:
        add((namespace or "", name or ""))

    async def owned(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        server = labels.get(SERVER)
        if server:
            add((namespace or "", server))

    def login(**context: Any) -> kopf.ConnectionInfo | None:
        # kopf's own choice would import a second, blocking client
        return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)

    kopf.on.login(registry=handlers)(login)
    kopf.on.event(*_selector(kinds.MLFLOWSERVER), registry=handlers)(resource)
    for kind in OWNED:
        kopf.on.event(
            *_selector(kind), registry=handlers, id=f"owned-{kind.plural}", labels={SERVER: kopf.PRESENT}
        )(owned)
    return handlers


SERVER = labels.SERVER


def settings(namespaces: Collection[str] = ()) -> kopf.OperatorSettings:
    """kopf without writes of its own, and with watches that the API server filters. `namespaces` empty: all."""
    chosen = kopf.OperatorSettings()
    # Roles in namespaces can't grant a look at namespaces and definitions, and kopf would ask for almost a minute
    # before it takes no for an answer and watches anything.
    chosen.scanning.disabled = bool(namespaces)
    chosen.posting.enabled = False
    chosen.networking.connect_timeout = 5
    chosen.networking.request_timeout = 30
    for kind in OWNED:
        chosen.watching.label_selectors[_selector(kind)] = labels.managed()
    return chosen


async def run(add: Callable[[Key], None], namespaces: Collection[str]) -> None:
    """Watches until the process is told to stop. `namespaces` empty: all of them."""
    await kopf.operator(
        registry=registry(add),
        settings=settings(namespaces),
        # kopf would ask for the name of the user, and an arbitrary user id has none
        identity="mlflow-operator",  # type: ignore[arg-type]
        standalone=True,
        clusterwide=not namespaces,
        namespaces=tuple(namespaces),
    )


def _selector(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return (group, version, kind.plural)
