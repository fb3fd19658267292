"""The platform of a server: whether it still exists, selects the namespace of the server, and offers its stores."""

from collections.abc import Iterator

from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.observed import ObservedPlatforms, Server
from mlflow_operator.model.platform import Part

_CHECK = "platform"
_NOUNS = {Part.DATABASE: "database", Part.ARTIFACTS: "artifact store"}


def check(server: Server, platforms: ObservedPlatforms) -> Iterator[Finding]:
    """No findings for a server that uses no platform, or if the platforms could not be read."""
    recorded = (server.resource.get("status") or {}).get("platform") or {}
    name = str(recorded.get("name") or "")
    if not name or isinstance(platforms.resources, Unobserved):
        return
    if not recorded.get("parts") and not (server.resource.get("spec") or {}).get("platformRef"):
        return  # It has moved to other stores, and does not need the platform any more.
    parts = [part for part in Part if part in (recorded.get("parts") or ())]
    nouns = " and ".join(_NOUNS[part] for part in parts) or "no store"
    state, message, next_step = State.OK, f"{name} ({nouns})", ""
    platform = platforms.by_name.get(name)
    labels = platforms.namespaces.get(server.namespace)
    if platform is None:
        state, message = State.FAILED, f'MLflowPlatform "{name}", which the server uses, does not exist.'
        next_step = (
            "Ask a cluster administrator to create it again with the same stores. The pods continue to run."
        )
    elif platform.resolved is None:
        state, message = State.FAILED, f'MLflowPlatform "{name}", which the server uses, is invalid.'
        next_step = "See the condition Ready of the platform. The pods continue to run."
    elif missing := [_NOUNS[part] for part in parts if part not in platform.resolved.parts]:
        state = State.FAILED
        message = (
            f'MLflowPlatform "{name}" no longer offers the {" and ".join(missing)} that the server uses.'
        )
        next_step = "Ask a cluster administrator to restore it. The pods continue to run."
    elif labels is None:
        state = State.UNKNOWN
        message = f"Not checked whether {name} selects the namespace: this account is not allowed to get it."
    elif not platform.resolved.selects(labels):
        state, message = (
            State.FAILED,
            f'MLflowPlatform "{name}" no longer selects namespace {server.namespace}.',
        )
        next_step = (
            "Ask a cluster administrator to label the namespace as the platform's spec.namespaceSelector requires. The "
            "pods continue to run."
        )
    yield Finding(server.subject, _CHECK, state, message, next_step)
