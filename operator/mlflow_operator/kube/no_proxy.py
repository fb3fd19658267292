"""Exceptions from the HTTP proxy of the environment: the API server and names in the cluster.

Proxies are outside the cluster. They cannot resolve its names, and must not see its credentials. The Kubernetes client,
boto3 and aiohttp all read the variables when they send a request.
"""

from collections.abc import MutableMapping

_LOCAL = ("localhost", "127.0.0.1", "::1")


def exempt_cluster(environ: MutableMapping[str, str], cluster_domain: str) -> None:
    """Add the exceptions to NO_PROXY of a process in a cluster. Outside a cluster, a proxy may lead to it."""
    api_server = environ.get("KUBERNETES_SERVICE_HOST")
    if not api_server:
        return
    # Programs that know both variables use the one in lower case.
    current = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if current.strip() == "*":
        return
    hosts = [host.strip() for host in current.split(",") if host.strip()]
    hosts += [api_server, ".svc", f".svc.{cluster_domain}", *_LOCAL]
    environ["no_proxy"] = environ["NO_PROXY"] = ",".join(dict.fromkeys(hosts))
