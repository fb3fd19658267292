"""Which Host headers the server answers: a page on another name must not reach it through DNS rebinding.

MLflow compares the whole header, or matches it as a file-name pattern where the entry holds a `*`. Naming any
host replaces MLflow's own list, so its list (this machine, private addresses) is part of ours.
"""

from collections.abc import Iterable, Iterator
from itertools import product

_PRIVATE = (
    "localhost",
    "localhost:*",
    "127.0.0.1",
    "127.0.0.1:*",
    "[[]::1]:*",
    "10.*",
    "192.168.*",
    *(f"172.{i}.*" for i in range(16, 32)),
    "fc00:*",
    "fd00:*",
)


def _with_port(host: str) -> tuple[str, ...]:
    bare = host if host.endswith("*") or ":" in host else f"{host}:*"
    return (host,) if bare == host else (host, bare)


def service_names(service: str, namespace: str, domain: str) -> list[str]:
    """Every name that DNS inside the cluster gives a Service."""
    full = f"{service}.{namespace}"
    names = (service, full, f"{full}.svc", f"{full}.svc.{domain}")
    return [host for name in names for host in _with_port(name)]


def node_port(port: int) -> Iterator[str]:
    """Any IPv4 address with this node port.

    The operator can't list nodes, and a list would roll the pods with every node that comes. An address can't
    be rebound, a name can: so each digit is spelled out, and no name ever fits.
    """
    octets = ("[0-9]", "[0-9][0-9]", "[0-9][0-9][0-9]")
    # MLflow takes an entry for a pattern only if it holds a "*"; after the port's digits one can do no harm
    return (f"{'.'.join(four)}:{port}*" for four in product(octets, repeat=4))


def allowed_hosts(names: Iterable[str], others: Iterable[str], node_ports: Iterable[int]) -> tuple[str, ...]:
    """The value of MLFLOW_SERVER_ALLOWED_HOSTS, in a stable order and without repeats.

    `names` come from `service_names`; `others` are `spec.allowedHosts` and the load balancer's addresses.
    """
    hosts = [*names, *(entry for host in others for entry in _with_port(host)), *_PRIVATE]
    for port in node_ports:
        hosts += node_port(port)
    return tuple(dict.fromkeys(hosts))


def origins(hosts: Iterable[str]) -> tuple[str, ...]:
    """The value of MLFLOW_SERVER_CORS_ALLOWED_ORIGINS: pages that this very server served may talk to it."""
    return tuple(f"{scheme}://{host}" for host in hosts for scheme in ("http", "https"))
