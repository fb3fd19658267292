"""Host headers and origins that the server accepts: a web page under another name must not reach it.

MLflow compares the whole header with an entry, or matches it as a shell pattern if the entry contains a `*`. A custom
list replaces MLflow's own list.

Every IP address is accepted as a host. The check is for DNS rebinding, where a page resolves a name of its own to the
address of the server: this needs a name, and a browser that was given an address sends that address. A name whose last
label is a number does not exist for browsers, they accept only IPv4 addresses in this form. The patterns therefore
require a number at the end, where MLflow's own `10.*` also matches `10.evil.example`.

MLflow does not normalize the dot of the DNS root at the end of a host. Every host is therefore accepted with and
without it. This adds no other names: both forms resolve to the same addresses.

Origins are different: any address can serve a page that sends requests to the server. Only private addresses and those
of the Service are accepted, because the server's own pages are loaded from them.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator

_LAST_OCTETS = ("[0-9]", "[0-9][0-9]", "[0-9][0-9][0-9]")
_PORTS = ("", ":*")
_ANY_ADDRESS = (
    *(
        f"[0-9]*.[0-9]*.[0-9]*.{octet}{dot}{port}"
        for octet in _LAST_OCTETS
        for dot in ("", ".")
        for port in _PORTS
    ),
    *(f"[[]*:*]{port}" for port in _PORTS),
)
_PRIVATE_NETWORKS = {
    "10.0.0.0/8": ("10.",),
    "172.16.0.0/12": ("172.1[6-9].", "172.2[0-9].", "172.3[01]."),
    "192.168.0.0/16": ("192.168.",),
    # Carrier-grade NAT (RFC 6598): pods and Services of some cloud providers.
    "100.64.0.0/10": ("100.6[4-9].", "100.[7-9][0-9].", "100.1[01][0-9].", "100.12[0-7]."),
}
_PRIVATE_ADDRESSES = (
    *(
        f"{prefix}*.{octet}{port}"
        for prefixes in _PRIVATE_NETWORKS.values()
        for prefix in prefixes
        for octet in _LAST_OCTETS
        for port in _PORTS
    ),
    *(f"[[]f[cd][0-9a-f][0-9a-f]:*]{port}" for port in _PORTS),
)
_PRIVATE = [ipaddress.ip_network(network) for network in (*_PRIVATE_NETWORKS, "fc00::/7")]

_ORIGIN_OF_PATTERN = "http*[!^]/{}"
"""Matches `http://` and `https://` before a host. MLflow also passes the entries to flask-cors, which reads them as
regular expressions that match the beginning of an origin: `http://mlflow:*` would match `http://mlflow.evil.example`.
As a regular expression, `[!^]` requires a character that no origin contains."""


def service_names(service: str, namespace: str, domain: str) -> list[str]:
    """Every DNS name of a Service inside the cluster."""
    full = f"{service}.{namespace}"
    return [service, full, f"{full}.svc", f"{full}.svc.{domain}"]


def is_address(host: str) -> bool:
    """Whether `host` is an IPv4 or IPv6 address, without brackets and port."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_private(address: str) -> bool:
    """Whether `address` is in one of the private ranges, which are accepted as origins in every cluster."""
    parsed = ipaddress.ip_address(address)
    return any(parsed.version == network.version and parsed in network for network in _PRIVATE)


def allowed_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    """The value of MLFLOW_SERVER_ALLOWED_HOSTS, in a stable order and without duplicates.

    `hosts` are names and addresses of the server. They can contain a port, and `*` for any characters. A pattern of
    addresses, such as `10.*`, adds nothing: each address is accepted, and no name that begins like one.
    """
    names = [host for host in hosts if not _is_address_pattern(host)]
    return tuple(
        dict.fromkeys(
            [
                *(entry for host in (*names, "localhost") for entry in _entries(host)),
                *_ANY_ADDRESS,
            ]
        )
    )


def allowed_origins(hosts: Iterable[str], node_ports: Iterable[int]) -> tuple[str, ...]:
    """The value of MLFLOW_SERVER_CORS_ALLOWED_ORIGINS: pages that this server itself serves may send it requests.

    The operator cannot list nodes, and a list would restart the pods whenever a node is added: each address with a node
    port is accepted.
    """
    # MLflow itself accepts `localhost`, but not `localhost.`.
    entries = [entry for host in (*hosts, "localhost") for entry in _entries(host)]
    entries += _PRIVATE_ADDRESSES
    for port in node_ports:
        entries += [*(f"[0-9]*.[0-9]*.[0-9]*.{octet}:{port}" for octet in _LAST_OCTETS), f"[[]*:*]:{port}"]
    return tuple(dict.fromkeys(origin for entry in entries for origin in _origins(entry)))


def _entries(host: str) -> Iterator[str]:
    """MLflow's entries for a host: with each port if `host` has none; a name with and without the dot at its end."""
    if _is_address_pattern(host):
        yield from _address_entries(host)
        return
    name, port = _split_port(host)
    # A pattern that ends with `*` matches the dot, too. Without its dot, `*.` would disable the check.
    name = name if name.endswith("*.") else name.removesuffix(".")
    is_name = not name.startswith("[") and not name.endswith((".", "*")) and not is_address(name)
    for variant in (name, f"{name}.") if is_name else (name,):
        if port:
            yield _pattern(f"{variant}:{port}") if "*" in port else f"{variant}:{port}"
        else:
            yield variant
            if not variant.endswith("*"):
                yield _pattern(f"{variant}:*")


def _address_entries(pattern: str) -> Iterator[str]:
    """Patterns for the addresses that begin like `pattern`, such as `203.0.113.*`, and for no name."""
    addresses, _, port = pattern.partition(":")
    labels = addresses.rstrip("*.").split(".")
    middle = "" if len(labels) >= 3 else ".*"
    for octet in _LAST_OCTETS:
        for suffix in [f":{port}"] if port else _PORTS:
            yield f"{'.'.join(labels[:3])}{middle}.{octet}{suffix}"


def _origins(entry: str) -> Iterator[str]:
    if "*" in entry or "[" in entry:
        yield _ORIGIN_OF_PATTERN.format(
            _pattern(entry) if entry.startswith("[") and "*" not in entry else entry
        )
        return
    for scheme in ("http", "https"):
        yield f"{scheme}://{entry}"


def _split_port(host: str) -> tuple[str, str]:
    if is_address(host):
        return (f"[{host}]" if ":" in host else host), ""
    name, closing, rest = host.partition("]")
    if closing and not host.startswith("[[]"):
        return name + closing, rest.removeprefix(":")
    name, _, port = host.partition(":") if not closing else (host, "", "")
    return name, port


def _pattern(entry: str) -> str:
    """`entry` as a pattern: in a pattern, `[` begins a set of characters."""
    return entry if entry.startswith("[[]") else entry.replace("[", "[[]")


def _is_address_pattern(host: str) -> bool:
    """Whether `host` is the beginning of an IPv4 address and a `*`, possibly with a dot and a port."""
    return re.fullmatch(r"([0-9]{1,3}\.){1,3}\*\.?(:[0-9*]+)?", host) is not None
