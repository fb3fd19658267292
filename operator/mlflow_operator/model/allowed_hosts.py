"""Host headers that the server accepts: a web page under another name must not reach it through DNS rebinding.

MLflow compares the whole header with an entry, or matches it as a shell pattern if the entry contains a `*`. A custom
list replaces MLflow's own list, so MLflow's entries (localhost, private addresses) are included here.
"""

from collections.abc import Iterable, Iterator
from itertools import product

_PRIVATE_HOSTS = (
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
    with_port = host if host.endswith("*") or ":" in host else f"{host}:*"
    return (host,) if with_port == host else (host, with_port)


def service_names(service: str, namespace: str, domain: str) -> list[str]:
    """Every DNS name of a Service inside the cluster."""
    full = f"{service}.{namespace}"
    names = (service, full, f"{full}.svc", f"{full}.svc.{domain}")
    return [host for name in names for host in _with_port(name)]


def node_port_patterns(port: int) -> Iterator[str]:
    """Patterns that match any IPv4 address with this node port, and no host name.

    The operator cannot list nodes, and a list would restart the pods whenever a node is added. A name can be used for
    DNS rebinding, an address cannot: the patterns therefore match digits only.
    """
    octets = ("[0-9]", "[0-9][0-9]", "[0-9][0-9][0-9]")
    # MLflow treats an entry as a pattern only if it contains a "*". After the digits of the port it does no harm.
    return (f"{'.'.join(four)}:{port}*" for four in product(octets, repeat=4))


def allowed_hosts(
    names: Iterable[str], additional_hosts: Iterable[str], node_ports: Iterable[int]
) -> tuple[str, ...]:
    """The value of MLFLOW_SERVER_ALLOWED_HOSTS, in a stable order and without duplicates.

    `names` are the result of `service_names`; `additional_hosts` are `spec.allowedHosts` and the load balancer's
    addresses.
    """
    hosts = [*names, *(entry for host in additional_hosts for entry in _with_port(host)), *_PRIVATE_HOSTS]
    for port in node_ports:
        hosts += node_port_patterns(port)
    return tuple(dict.fromkeys(hosts))


def origins(hosts: Iterable[str]) -> tuple[str, ...]:
    """The value of MLFLOW_SERVER_CORS_ALLOWED_ORIGINS: pages that this server itself serves may send it requests."""
    return tuple(f"{scheme}://{host}" for host in hosts for scheme in ("http", "https"))
