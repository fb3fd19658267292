"""CustomResourceDefinitions that the tests install."""

import time
from pathlib import Path

import yaml

from mlflow_operator import api
from mlflow_operator.kube import kinds
from tests import cloudnativepg
from tests.apiserver.client import Client, Object
from tests.cluster.settings import ROOT

MANIFEST: Path = ROOT / "manifests" / "crd.yaml"
NAME = f"{api.PLURAL}.{api.GROUP}"

SERVED_SECONDS = 30.0
POLL_SECONDS = 0.05


def manifest() -> Object:
    """The CRD of MLflowServer, as this checkout ships it."""
    found: Object = yaml.safe_load(MANIFEST.read_text())
    return found


def install(client: Client) -> None:
    """Create the CRDs of MLflowServer and of CloudNativePG's Cluster; returns when both are served."""
    for crd in (manifest(), cloudnativepg.DEFINITION):
        client.apply(kinds.CRD, crd)
    for crd in (manifest(), cloudnativepg.DEFINITION):
        wait_until_served(client, crd)


def wait_until_served(client: Client, crd: Object) -> None:
    """Wait until objects of this kind can be created. AssertionError after SERVED_SECONDS."""
    deadline = time.monotonic() + SERVED_SECONDS
    while not _established(client, crd["metadata"]["name"]):
        assert time.monotonic() < deadline, f"{crd['metadata']['name']} is not established"
        time.sleep(POLL_SECONDS)


def _established(client: Client, name: str) -> bool:
    found = client.get(kinds.CRD, None, name) or {}
    conditions = (found.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
