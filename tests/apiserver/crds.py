"""CustomResourceDefinitions that the tests install."""

import time
from http import HTTPStatus
from pathlib import Path

import yaml

from mlflow_operator import api
from mlflow_operator.kube import kinds
from tests import cloudnativepg
from tests.apiserver.client import ApiError, Client, Object
from tests.cluster.settings import ROOT

MANIFEST: Path = ROOT / "manifests" / "crd.yaml"
NAME = f"{api.PLURAL}.{api.GROUP}"

SERVED_SECONDS = 30.0
POLL_SECONDS = 0.05


def manifests() -> list[Object]:
    """The CRDs from this checkout."""
    return [*yaml.safe_load_all(MANIFEST.read_text())]


def manifest() -> Object:
    """The CRD of MLflowServer from this checkout."""
    return next(crd for crd in manifests() if crd["metadata"]["name"] == NAME)


def install(client: Client) -> None:
    """Create the CRDs of this checkout and of CloudNativePG's Cluster, and wait until all are served."""
    crds = [*manifests(), cloudnativepg.CRD]
    for crd in crds:
        client.apply(kinds.CRD, crd)
    for crd in crds:
        wait_until_served(client, crd)


def wait_until_served(client: Client, crd: Object) -> None:
    """Wait until objects of this kind can be created. Raises AssertionError after SERVED_SECONDS.

    The API server writes the condition Established before it serves the kind.
    """
    deadline = time.monotonic() + SERVED_SECONDS
    while not (_established(client, crd["metadata"]["name"]) and _listed(client, crd)):
        assert time.monotonic() < deadline, f"{crd['metadata']['name']} is not served"
        time.sleep(POLL_SECONDS)


def _established(client: Client, name: str) -> bool:
    crd = client.get(kinds.CRD, None, name) or {}
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _listed(client: Client, crd: Object) -> bool:
    spec = crd["spec"]
    try:
        for version in (version for version in spec["versions"] if version["served"]):
            client.request(
                "GET", f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}", limit="1"
            )
    except ApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True
