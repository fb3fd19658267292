"""Upload and download of a large file with each `artifacts.access`, and the growth of the server's memory."""

import os

from mlflow.utils import server_info
from tests.e2e import timeouts
from tests.e2e.large_files import (
    RoundTrip,
    client_environment,
    peak_memory_bytes,
    round_trip,
    round_trip_in_subprocess,
)
from tests.e2e.server import SMALL_RESOURCES, Server, is_ready, small_spec

from benchmarks import stores
from benchmarks.capacity import MIB, Resources
from benchmarks.lab import Lab
from benchmarks.rows import Row, must_be_below, without_target

FULL_MIB, QUICK_MIB = 1024, 100
ROUND_TRIP_TIMEOUT_SECONDS = 600.0
MEMORY_DIVISOR = 8
"""The server's peak memory may grow by at most the file's size divided by this number."""

MULTIPART_SIZE_VARIABLE = "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"
"""Minimum size for which MLflow's client uses presigned URLs. It always uploads smaller files through the server."""


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores, one server, and the pod that replaces it."""
    return stores.REQUESTS + Resources.of(SMALL_RESOURCES["requests"]) * 2


def measure(lab: Lab) -> list[Row]:
    """Return three rows for each access. The variable `ARTIFACT_MIB` sets the file's size in MiB."""
    size = int(os.environ.get("ARTIFACT_MIB") or (QUICK_MIB if lab.quick else FULL_MIB)) * MIB
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ[MULTIPART_SIZE_VARIABLE] = str(min(size, 500 * MIB))
    rows = []
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("artifacts") as kube:
        kube.apply(*shared.secrets())
        spec = shared.spec(shared.create_database("access", template))
        spec["artifacts"]["access"] = "Proxied"
        server = lab.wait_ready(Server(kube).apply(small_spec(**spec)))
        for access in ("Proxied", "Presigned", "Direct"):
            if access != "Proxied":
                _change_access(lab, server, access)
            rows += _measure_access(lab, server, access, size)
            shared.delete_artifacts("access")
    return rows


def _change_access(lab: Lab, server: Server, access: str) -> None:
    """Change the server's access, and wait until the new pod is ready and the old pod is gone."""
    old = server.pod()["metadata"]["name"]
    server.patch_spec(storageChangePolicy="Allow", artifacts={"access": access})

    def replaced() -> bool:
        pods = server.pods("server")
        return len(pods) == 1 and is_ready(pods[0]) and not server.kube.get("Pod", old)

    lab.wait_for(f"a pod with access {access} has replaced the old one", replaced, timeouts.ROLLOUT_SECONDS)
    lab.wait_ready(server)
    # the client of this process caches the server's previous answer
    server_info._clear_server_info_cache()


def _measure_access(lab: Lab, server: Server, access: str, size: int) -> list[Row]:
    environment = {}
    if access == "Direct":
        settings, keys = client_environment(server)
        environment = settings | keys
    _round_trip(server, environment, MIB)
    before = peak_memory_bytes(server)
    round_trips = []
    for round_number in range(1 if lab.quick else min(lab.rounds, 3)):
        what = f"upload and download of {size // MIB} MiB, {access}"
        round_trips.append(
            lab.run(what, lambda: _round_trip(server, environment, size), ROUND_TRIP_TIMEOUT_SECONDS)
        )
        last = round_trips[-1]
        lab.log(
            f"{access}, round {round_number + 1}: "
            f"upload {last.upload_seconds:.1f} s, download {last.download_seconds:.1f} s"
        )
    growth_mib = max(0, peak_memory_bytes(server) - before) / MIB
    what = f"{size // MIB} MiB, {access}"
    return [
        without_target(f"{what}: upload", [trip.upload_seconds for trip in round_trips], "s"),
        without_target(f"{what}: download", [trip.download_seconds for trip in round_trips], "s"),
        must_be_below(
            f"{what}: growth of the server's peak memory",
            [growth_mib],
            size / MIB / MEMORY_DIVISOR,
            "MiB",
        ),
    ]


def _round_trip(server: Server, environment: dict[str, str], size: int) -> RoundTrip:
    result = (
        round_trip_in_subprocess(server, environment, size) if environment else round_trip(server.url, size)
    )
    if not result.unchanged:
        raise AssertionError("the downloaded file differs from the uploaded one")
    return result
