"""Namespaces of the tests, and those that all processes of a run share.

Whichever process first needs a shared namespace creates it and what is in it; the others wait for that, and read what
they have to know about it from a file in `out/`.
"""

import fcntl
import json
import uuid
from collections.abc import Callable

from tests.cluster import settings
from tests.e2e.kube import TEST_LABEL, Kube, Object

FOLDER = settings.ROOT / "out" / "shared"


def create_namespace(kube: Kube, prefix: str) -> Kube:
    """A new namespace under restricted Pod Security, with a random name that begins with `prefix`."""
    name = f"{prefix}-{uuid.uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted", TEST_LABEL: "true"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    return kube.within(name)


def delete_namespaces(kube: Kube, *names: str) -> None:
    """Deletes them and does not wait. One call for all of them: a call for each takes longer than some tests."""
    if names:
        kube.kubectl("delete", "namespaces", *names, "--wait=false", "--ignore-not-found")


def shared(kube: Kube, name: str, create: Callable[[Kube], Object]) -> tuple[Kube, Object]:
    """The shared namespace `name`, and the facts that `create` returned when it filled that namespace."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.json"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            own = create_namespace(kube, f"e2e-{name}")
            file.write_text(json.dumps({"namespace": own.namespace, "facts": create(own)}))
        known = json.loads(file.read_text())
    return kube.within(known["namespace"]), known["facts"]


def delete_shared(kube: Kube) -> None:
    """Deletes every shared namespace of this run."""
    files = [*FOLDER.glob("*.json")]
    delete_namespaces(kube, *(json.loads(file.read_text())["namespace"] for file in files))
    for file in files:
        file.unlink()
