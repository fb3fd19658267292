"""`mlflow-operator render` prints, without a cluster, what the operator makes in one."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import yaml
from kubernetes.utils.quantity import parse_quantity

from tests.e2e.kube import Object
from tests.e2e.server import Server

GROUP = "shared"


def missing(live: Any, wanted: Any, at: str = "") -> Iterator[str]:
    """Where `live` does not have what `wanted` asks for; what the API server fills in does not count."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for key, value in wanted.items():
            yield from missing(live.get(key), value, f"{at}.{key}")
    elif isinstance(wanted, list) and isinstance(live, list) and len(live) == len(wanted):
        # ours come in our order, the API server adds none in between
        for index, (ours, theirs) in enumerate(zip(wanted, live, strict=True)):
            yield from missing(theirs, ours, f"{at}[{index}]")
    elif live != wanted and (live or wanted) and not same_quantity(live, wanted):
        yield f"{at}: {live!r} instead of {wanted!r}"


def same_quantity(one: Any, other: Any) -> bool:
    """The API server writes 2048Mi as 2Gi."""
    try:
        return bool(parse_quantity(one) == parse_quantity(other))
    except (ValueError, TypeError):
        return False


def rendered(server: Server) -> list[Object]:
    """What render makes of the stored resource."""
    live = server.live()
    meta = {key: live["metadata"][key] for key in ("name", "namespace", "uid")}
    text = yaml.safe_dump({**live, "metadata": meta})
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_operator.cli", "render", "-f", "-"],
        input=text,
        text=True,
        capture_output=True,
        check=True,
    )
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def test_what_render_prints_is_what_the_operator_made(shared: Server) -> None:
    """Every object is there, as printed, but for what only the cluster knows."""
    objects = rendered(shared)
    kinds = {(obj["kind"], obj["metadata"]["name"]) for obj in objects}
    assert ("Deployment", shared.names.deployment) in kinds
    assert ("Service", shared.names.service) in kinds
    assert len(kinds) >= 8
    for obj in objects:
        if obj["kind"] in {"Secret", "Job"}:
            continue  # values are generated, and a Job's name holds the hash of its database's state
        if obj["kind"] == "Deployment":
            without_node_port(obj)
        live = shared.kube.need(obj["kind"], obj["metadata"]["name"])
        wanted: Object = {part: obj[part] for part in ("spec", "data") if part in obj}
        wanted["metadata"] = {"labels": obj["metadata"]["labels"]}
        assert not [*missing(live, wanted, f"{obj['kind']} {obj['metadata']['name']}")]


def without_node_port(deployment: Object) -> None:
    """What follows from the Service's node port, and the HMAC of Secrets: unknown without a cluster."""
    template = deployment["spec"]["template"]
    template["metadata"].pop("annotations", None)
    for variable in template["spec"]["containers"][0]["env"]:
        if variable["name"] in {"MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"}:
            variable.clear()
