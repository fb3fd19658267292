"""Namespaces of tests, and namespaces that all processes of a run share.

The first process that needs a shared namespace creates it and its contents. The other processes wait for that, and read
the facts about it from a file in `out/`.
"""

import fcntl
import json
import uuid
from collections.abc import Callable, Mapping

from tests import polling
from tests.cluster import settings
from tests.e2e import timeouts
from tests.e2e.kube import TEST_LABEL, Kube, Object

FOLDER = settings.ROOT / "out" / "shared"
QUOTA = "team"
"""Name of the ResourceQuota of a namespace."""


def create_namespace(kube: Kube, prefix: str) -> Kube:
    """Create a namespace with the restricted Pod Security level and a random name with this prefix."""
    name = f"{prefix}-{uuid.uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted", TEST_LABEL: "true"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    return kube.in_namespace(name)


def delete_namespaces(kube: Kube, *names: str) -> None:
    """Delete namespaces without waiting, in one call: one call per namespace takes longer than some tests."""
    if names:
        kube.kubectl("delete", "namespaces", *names, "--wait=false", "--ignore-not-found")


def set_quota(kube: Kube, hard: Mapping[str, str]) -> None:
    """Create or change the ResourceQuota of the namespace, and wait until it is enforced."""
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": QUOTA},
            "spec": {"hard": dict(hard)},
        }
    )

    def is_enforced() -> bool:
        return bool((kube.require("ResourceQuota", QUOTA).get("status") or {}).get("hard") == hard)

    # Admission uses the quota's status, and controllers keep the first error message.
    polling.eventually("the quota is enforced", is_enforced, timeouts.STATUS_SECONDS)


def shared_namespace(kube: Kube, name: str, create: Callable[[Kube], Object]) -> tuple[Kube, Object]:
    """Return the shared namespace `name` and the facts that `create` returned when it filled the namespace."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.json"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            namespaced_kube = create_namespace(kube, f"e2e-{name}")
            file.write_text(
                json.dumps({"namespace": namespaced_kube.namespace, "facts": create(namespaced_kube)})
            )
        stored = json.loads(file.read_text())
    return kube.in_namespace(stored["namespace"]), stored["facts"]


def delete_shared(kube: Kube) -> None:
    """Delete every shared namespace of this run."""
    files = [*FOLDER.glob("*.json")]
    delete_namespaces(kube, *(json.loads(file.read_text())["namespace"] for file in files))
    for file in files:
        file.unlink()
