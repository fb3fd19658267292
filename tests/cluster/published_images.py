"""Checks whether the registries of the published images are reachable."""

import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

PROBE_TIMEOUT_SECONDS = 4
# docker.io only exists in references; its registry has another host name.
HOSTS = {"docker.io": "registry-1.docker.io"}


def unreachable_hosts(references: Iterable[str]) -> list[str]:
    """Return the registries of these references that do not answer like a registry, sorted."""
    hosts = sorted({reference.split("/", 1)[0] for reference in references})
    with ThreadPoolExecutor() as pool:
        reachable = list(pool.map(_is_reachable, hosts))
    return [host for host, is_reachable in zip(hosts, reachable, strict=True) if not is_reachable]


def _is_reachable(host: str) -> bool:
    url = f"https://{HOSTS.get(host, host)}/v2/"
    try:
        with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_SECONDS) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        # A registry asks unknown clients to authenticate; another server, such as a proxy, would not.
        return error.code == 401 and "www-authenticate" in error.headers
    except OSError:
        return False
