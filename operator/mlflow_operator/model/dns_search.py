"""Names that the DNS search list of a pod adds to a host.

The resolver of a pod tries a name with fewer than five dots with each search domain before it tries the name itself.
One of the domains is `svc.<cluster domain>`, which contains the Services of all namespaces.
"""

import re

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def shadowing_service(host: str) -> tuple[str, str] | None:
    """Return the Service, or the pod of a Service, that a pod resolves `host` to if it exists, and its namespace.

    The Service is the object of a sentence, such as `Service "pg"`. None if no Service has such a name. This also
    concerns names that end with `.svc`, because a namespace can be called svc.
    """
    labels = host.lower().split(".")
    if not all(map(_LABEL.fullmatch, labels)):
        return None
    match labels:
        case [service, namespace]:
            return f'Service "{service}"', namespace
        case [pod, service, namespace]:
            return f'pod "{pod}" of Service "{service}"', namespace
        case _:
            return None
