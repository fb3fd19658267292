"""A large file up and down by each of the three ways, and what the server's memory shows of it."""

import os

from tests.e2e.scientist import MIB
from tests.e2e.server import Server, small
from tests.e2e.transfer import Trip, by_a_stranger, change, given, peak, there_and_back

from benchmarks import stores
from benchmarks.lab import Lab
from benchmarks.rows import Row, below, told

FULL_MIB, QUICK_MIB = 1024, 100
SHARE = 8
"""A server may take an eighth of the file's size more memory at its peak."""

LEAST = "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"
"""From where on MLflow's client uploads by signed URLs; smaller files pass through the server in any case."""


def take(lab: Lab) -> list[Row]:
    """Three rows a way. `ARTIFACT_MIB` is the file's size, in MiB."""
    size = int(os.environ.get("ARTIFACT_MIB") or (QUICK_MIB if lab.quick else FULL_MIB)) * MIB
    os.environ[LEAST] = str(min(size, 500 * MIB))
    rows = []
    with lab.namespace("stores") as base, lab.namespace("artifacts") as kube:
        shared = stores.start(base)
        kube.apply(*shared.secrets())
        spec = shared.spec(shared.database("ways"))
        spec["artifacts"]["access"] = "Proxied"
        server = Server(kube).apply(small(**spec)).ready()
        for access in ("Proxied", "Presigned", "Direct"):
            if access != "Proxied":
                change(server, access=access)
            rows += _way(lab, server, access, size)
    return rows


def _way(lab: Lab, server: Server, access: str, size: int) -> list[Row]:
    environment = {}
    if access == "Direct":
        settings, keys = given(server)
        environment = settings | keys
    _trip(server, environment, MIB)
    before = peak(server)
    trips = []
    for turn in range(1 if lab.quick else min(lab.rounds, 3)):
        trips.append(_trip(server, environment, size))
        lab.say(f"{access}, round {turn + 1}: up {trips[-1].up:.1f} s, down {trips[-1].down:.1f} s")
    more = max(0, peak(server) - before) / MIB
    what = f"{size // MIB} MiB, {access}"
    return [
        told(f"{what}: up", [trip.up for trip in trips], "s"),
        told(f"{what}: down", [trip.down for trip in trips], "s"),
        below(f"{what}: more memory of the server at its peak", [more], size / MIB / SHARE, "MiB"),
    ]


def _trip(server: Server, environment: dict[str, str], size: int) -> Trip:
    trip = by_a_stranger(server, environment, size) if environment else there_and_back(server.url, size)
    if not trip.same:
        raise AssertionError("what came down is not what went up")
    return trip
