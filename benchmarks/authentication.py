"""Requests per second of a user with a password, compared with MLflow's own basic authentication and with a server
without authentication, and the memory that it needs."""

from dataclasses import dataclass

from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server

from benchmarks import plain, stores, throughput
from benchmarks.capacity import Resources
from benchmarks.client import Api, Body, generate_load
from benchmarks.lab import Lab
from benchmarks.rows import Row, must_be_below, must_be_zero, ratio_at_least
from benchmarks.server_memory import pod_mib
from benchmarks.throughput import CLIENTS, ROUND_SECONDS, WARM_SECONDS

RESOURCES = throughput.RESOURCES
WORKERS = 2
PATHS = ("runs/log-metric", "runs/search")
BASIC, OPEN, STOCK = "basic", "open", "stock"
"""Names of the three servers: with `spec.auth`, without it, and MLflow's own basic authentication."""

ADMINISTRATOR = ("admin", "an-administrator-of-benchmarks")
"""Of MLflow's own basic authentication. The operator generates the password of its administrator."""

USER = ("analyst", "a-user-of-benchmarks")
MIN_RATIO_TO_STOCK, MIN_RATIO_TO_OPEN = 10.0, 0.65
MAX_MIB_PER_WORKER = 10.0
REQUEST_TIMEOUT_SECONDS = 120.0
"""MLflow's own basic authentication uses a second of CPU for some requests, and the pod has half a core."""


def peak_requests(_quick: bool) -> Resources:
    """Peak requests: the shared stores and the three servers, which run in parallel."""
    return stores.REQUESTS + Resources.of(RESOURCES["requests"]) * 3


@dataclass(frozen=True)
class Subject:
    """A measured server: a client that has logged in if the server requires it, and the bodies of its requests."""

    api: Api
    bodies: dict[str, list[Body]]


def measure(lab: Lab) -> list[Row]:
    """Return two rows per endpoint, one with failed requests, and one with memory. The load alternates between all."""
    shared, template = lab.stores(), lab.migrated_database()
    with lab.namespace("authentication", restricted=False) as kube:
        kube.apply(*shared.secrets())
        servers = {name: _start_server(kube, shared, template, name) for name in (BASIC, OPEN)}
        _start_stock_server(kube, shared, template)
        subjects = {name: _subject(_operator_api(lab, server), server) for name, server in servers.items()}
        subjects[STOCK] = _log_in(_stock_api(lab, kube), ADMINISTRATOR)
        rates: dict[tuple[str, str], list[float]] = {}
        failed: list[float] = []
        growth: list[float] = []
        for round_number in range(-1, lab.rounds):
            seconds = ROUND_SECONDS if round_number >= 0 else WARM_SECONDS
            seconds /= 2 if lab.quick else 1
            lab.log(f"round {round_number + 1}: {CLIENTS} clients send requests, six times {seconds:.0f} s")
            for path in PATHS:
                for name, subject in subjects.items():
                    result = generate_load(subject.api, path, subject.bodies[path], seconds)
                    if name == BASIC:
                        failed.append(float(result.failed))
                    if round_number >= 0:
                        rates.setdefault((path, name), []).append(result.requests_per_second)
            for (path, name), samples in rates.items():
                lab.log(f"  {path}, {name}: {samples[-1]:.1f}/s")
            if round_number >= 0:
                memory = {name: pod_mib(kube, server.pod()) for name, server in servers.items()}
                growth.append((memory[BASIC] - memory[OPEN]) / WORKERS)
        return [
            *(
                ratio_at_least(
                    f"{path.removeprefix('runs/')} requests per second with a password, one pod with 500m CPU",
                    rates[path, BASIC],
                    rates[path, name],
                    limit,
                    unit="/s",
                    baseline_name=baseline,
                )
                for path in PATHS
                for name, limit, baseline in (
                    (STOCK, MIN_RATIO_TO_STOCK, "MLflow's basic-auth"),
                    (OPEN, MIN_RATIO_TO_OPEN, "without authentication"),
                )
            ),
            must_be_zero("failed requests of the user meanwhile", failed),
            must_be_below("memory of authentication per worker", growth, MAX_MIB_PER_WORKER, "MiB"),
        ]


def _start_server(kube: Kube, shared: stores.Stores, template: str, name: str) -> Server:
    auth: Object = {"auth": {}} if name == BASIC else {}
    spec = {"workers": WORKERS, "resources": RESOURCES, "service": {"type": "NodePort"}, **auth}
    database = shared.create_database(f"authentication_{name}", template)
    return Server(kube, name).apply({**spec, **shared.spec(database)})


def _start_stock_server(kube: Kube, shared: stores.Stores, template: str) -> None:
    database = shared.create_database(f"authentication_{STOCK}", template)
    image, uri = kube.settings.pins["IMAGE_MLFLOW"], shared.uri(database, "postgresql")
    kube.apply(
        plain.basic_auth_secret(STOCK, uri, *ADMINISTRATOR),
        plain.basic_auth_deployment(STOCK, image, shared.env(database), RESOURCES, WORKERS),
        plain.node_port(STOCK),
    )


def _operator_api(lab: Lab, server: Server) -> Api:
    lab.wait_ready(server, throughput.START_TIMEOUT_SECONDS)
    port = server.service["spec"]["ports"][0]["nodePort"]
    host = f"{server.name}.{server.kube.namespace}.svc:{plain.PORT}"
    return Api((server.kube.node_address, port), host)


def _stock_api(lab: Lab, kube: Kube) -> Api:
    lab.wait_for(
        "MLflow's basic-auth server is ready",
        lambda: throughput.ready_replicas(kube, STOCK) == 1,
        throughput.START_TIMEOUT_SECONDS,
        0.5,
    )
    port = kube.require("Service", STOCK)["spec"]["ports"][0]["nodePort"]
    return Api((kube.node_address, port), f"localhost:{plain.PORT}", REQUEST_TIMEOUT_SECONDS)


def _subject(api: Api, server: Server) -> Subject:
    administrator = server.administrator
    return _log_in(api, administrator) if administrator else Subject(api, throughput.create_requests(api))


def _log_in(api: Api, administrator: tuple[str, str]) -> Subject:
    """Create a user without roles, who may edit the experiment of the requests because the user has created it."""
    username, password = USER
    api.logged_in(*administrator).post_json("users/create", {"username": username, "password": password})
    user = api.logged_in(username, password)
    return Subject(user, throughput.create_requests(user))
