"""The docker network of the cluster. No traffic leaves this machine from it."""

import json
import os
import shutil

from tests.cluster.settings import CLUSTER
from tests.cluster.shell import Failed, Shell
from tests.cluster.tools import SBIN

NAME = CLUSTER
BRIDGE = "br-mlflow-op"
# The rule names our bridge, so it never concerns the user's own containers. It rejects rather than drops packets:
# otherwise a pod that connects to a Service before kube-proxy knows it would hang for 30 s.
RULE = ("DOCKER-USER", "-i", BRIDGE, "!", "-o", BRIDGE, "-m", "comment", "--comment", CLUSTER, "-j", "REJECT")
OPTIONS = (
    f"com.docker.network.bridge.name={BRIDGE}",
    "com.docker.network.bridge.enable_ip_masquerade=false",
)


def is_current(sh: Shell) -> bool:
    """Whether the network exists and traffic cannot leave it."""
    return exists(sh) and (not _may_close(sh) or sh.ok(_iptables(), "-C", *RULE))


def exists(sh: Shell) -> bool:
    """Whether docker knows the network."""
    return sh.ok("docker", "network", "inspect", NAME)


def ensure(sh: Shell) -> None:
    """Create the network in the first free range, and keep traffic inside it.

    An `--internal` network would also hide the API port that kind publishes on loopback. Instead masquerading is off,
    and, where this user has the permission, the kernel rejects packets that would leave the bridge.
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
    """Remove the network and its rule."""
    if exists(sh):
        sh.run("docker", "network", "rm", NAME)
    while _may_close(sh) and sh.ok(_iptables(), "-C", *RULE):
        sh.run(_iptables(), "-D", *RULE)


def address(sh: Shell, last: int) -> str:
    """The address in the network's range that ends with `last`."""
    config = json.loads(sh.out("docker", "network", "inspect", "-f", "{{json .IPAM.Config}}", NAME))
    return f"{config[0]['Subnet'].rsplit('.', 1)[0]}.{last}"


def _may_close(sh: Shell) -> bool:
    """Only root can add the rule, and only with an engine that uses iptables. Elsewhere masquerading is just off."""
    return os.geteuid() == 0 and bool(_iptables()) and sh.ok(_iptables(), "-n", "-L", RULE[0])


def _iptables() -> str:
    return shutil.which("iptables", path=f"{os.environ.get('PATH', '')}:{SBIN}") or ""
