"""Whether this machine has IPv6, and ports that are free for both address families."""

import socket


def has_ipv6() -> bool:
    """Whether this machine has the IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port that is free for IPv4, and for IPv6 if this machine has it."""
    family = socket.AF_INET6 if has_ipv6() else socket.AF_INET
    with socket.socket(family) as free:  # an IPv6 socket covers both families
        free.bind(("", 0))
        return int(free.getsockname()[1])
