"""The docker network of the cluster, from which nothing leaves this machine."""

import json
import os
import shutil

from .settings import CLUSTER
from .shell import Failed, Shell
from .tools import SBIN

NAME = CLUSTER
BRIDGE = "br-mlflow-op"
# Only the cluster's containers, never the user's own: the rule names our bridge. It refuses rather than
# drops: pods that ask for a Service before kube-proxy knows it would else hang for 30 s.
RULE = ("DOCKER-USER", "-i", BRIDGE, "!", "-o", BRIDGE, "-m", "comment", "--comment", CLUSTER, "-j", "REJECT")
OPTIONS = (
    f"com.docker.network.bridge.name={BRIDGE}",
    "com.docker.network.bridge.enable_ip_masquerade=false",
)


def there(sh: Shell) -> bool:
    """Whether the network stands and is closed."""
    return exists(sh) and (not _may_close(sh) or sh.ok(_iptables(), "-C", *RULE))


def exists(sh: Shell) -> bool:
    """Whether docker knows the network."""
    return sh.ok("docker", "network", "inspect", NAME)


def make(sh: Shell) -> None:
    """Create the network in the first free range, and close it.

    An `--internal` network would also hide the API port that kind publishes on loopback: instead there is
    no masquerade, and, where this user may say so, the kernel refuses what would leave the bridge.
    """
    if not exists(sh):
        for third in range(5, 30):
            subnet = f"198.18.{third}.0/24"
            options = [part for option in OPTIONS for part in ("-o", option)]
            if sh.ok("docker", "network", "create", "--subnet", subnet, *options, NAME):
                break
        else:
            raise Failed(
                "docker has no free range for the cluster's network between 198.18.5.0 and 198.18.29.0"
            )
    if _may_close(sh) and not sh.ok(_iptables(), "-C", *RULE):
        sh.run(_iptables(), "-I", *RULE)


def remove(sh: Shell) -> None:
    """Take the network and its rule away."""
    if exists(sh):
        sh.run("docker", "network", "rm", NAME)
    while _may_close(sh) and sh.ok(_iptables(), "-C", *RULE):
        sh.run(_iptables(), "-D", *RULE)


def address(sh: Shell, last: int) -> str:
    """The address in the network's range that ends with `last`."""
    config = json.loads(sh.out("docker", "network", "inspect", "-f", "{{json .IPAM.Config}}", NAME))
    return f"{config[0]['Subnet'].rsplit('.', 1)[0]}.{last}"


def _may_close(sh: Shell) -> bool:
    """Only root may, and only an engine on iptables has the chain; else the missing masquerade must do."""
    return os.geteuid() == 0 and bool(_iptables()) and sh.ok(_iptables(), "-n", "-L", RULE[0])


def _iptables() -> str:
    return shutil.which("iptables", path=f"{os.environ.get('PATH', '')}:{SBIN}") or ""
