"""Addresses at which clouds serve the credentials of a node. The operator does not connect to them.

The users of a namespace choose the hosts of their stores, and the operator's node may have more permissions than their
pods. Addresses are checked for each connection, because a host name can have another address a moment later.
"""

import errno
import ipaddress
import socket

from aiohttp import AddrInfoType

REFUSED = "metadata addresses are refused"
"""Text in the errors for refused connections."""

_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32"),
    )
)
"""Link-local addresses, which AWS, Azure and Google Cloud use, and others of AWS and Alibaba Cloud."""


def is_refused(address: str) -> bool:
    """Whether the operator must not connect to an IPv4 or IPv6 address. False for anything else."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed.version == network.version and parsed in network for network in _NETWORKS)


def create_socket(address: AddrInfoType) -> socket.socket:
    """Return a socket for an address of `getaddrinfo`. Raises PermissionError for a refused one."""
    family, kind, protocol, _, destination = address
    if is_refused(str(destination[0])):
        raise PermissionError(errno.EACCES, REFUSED)
    return socket.socket(family, kind, protocol)
