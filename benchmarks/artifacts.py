"""Upload and download of a large file for each `artifacts.access`, and the additional memory of the server."""

import os

from mlflow.utils import server_info
from tests.e2e import timeouts
from tests.e2e.large_files import Trip, by_a_stranger, given, peak, there_and_back
from tests.e2e.server import LITTLE, Server, is_ready, small

from benchmarks import stores
from benchmarks.capacity import MIB, Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, below, reported

FULL_MIB, QUICK_MIB = 1024, 100
TRIP = 600.0
SHARE = 8
"""The server's peak memory may grow by an eighth of the file's size."""

LEAST = "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"
"""The size from which on MLflow's client uploads through signed URLs; smaller files always pass through the server."""


def peak_requests(_quick: bool) -> Resources:
    """Of the shared stores, one server, and the pod that replaces it."""
    return stores.REQUESTS + Resources.of(LITTLE["requests"]) * 2


def take(lab: Lab) -> list[Row]:
    """Three rows for each access. `ARTIFACT_MIB` is the file's size in MiB."""
    size = int(os.environ.get("ARTIFACT_MIB") or (QUICK_MIB if lab.quick else FULL_MIB)) * MIB
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ[LEAST] = str(min(size, 500 * MIB))
    rows = []
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("artifacts") as kube:
        kube.apply(*shared.secrets())
        spec = shared.spec(shared.database("ways", template))
        spec["artifacts"]["access"] = "Proxied"
        server = lab.ready(Server(kube).apply(small(**spec)))
        for access in ("Proxied", "Presigned", "Direct"):
            if access != "Proxied":
                _change(lab, server, access)
            rows += _way(lab, server, access, size)
            shared.delete_artifacts("ways")
    return rows


def _change(lab: Lab, server: Server, access: str) -> None:
    """Changes the server's access, and waits until its new pod is ready and the old one is gone."""
    old = server.pod()["metadata"]["name"]
    server.change(storageChangePolicy="Allow", artifacts={"access": access})

    def replaced() -> bool:
        pods = server.pods("server")
        return len(pods) == 1 and is_ready(pods[0]) and not server.kube.get("Pod", old)

    lab.until(f"a pod with access {access} has replaced the old one", replaced, timeouts.ROLLED)
    lab.ready(server)
    # otherwise this process' client would go by what the server offered before
    server_info._clear_server_info_cache()


def _way(lab: Lab, server: Server, access: str, size: int) -> list[Row]:
    environment = {}
    if access == "Direct":
        settings, keys = given(server)
        environment = settings | keys
    _trip(server, environment, MIB)
    before = peak(server)
    trips = []
    for turn in range(1 if lab.quick else min(lab.rounds, 3)):
        what = f"{size // MIB} MiB are uploaded and downloaded, {access}"
        trips.append(lab.run(what, lambda: _trip(server, environment, size), TRIP))
        lab.say(f"{access}, round {turn + 1}: up {trips[-1].up:.1f} s, down {trips[-1].down:.1f} s")
    more = max(0, peak(server) - before) / MIB
    what = f"{size // MIB} MiB, {access}"
    return [
        reported(f"{what}: up", [trip.up for trip in trips], "s"),
        reported(f"{what}: down", [trip.down for trip in trips], "s"),
        below(f"{what}: more memory of the server at its peak", [more], size / MIB / SHARE, "MiB"),
    ]


def _trip(server: Server, environment: dict[str, str], size: int) -> Trip:
    trip = by_a_stranger(server, environment, size) if environment else there_and_back(server.url, size)
    if not trip.same:
        raise AssertionError("the downloaded file differs from the uploaded one")
    return trip
