"""The docker network of the cluster. Its traffic cannot leave this machine."""

import json
import os
import shutil

from tests.cluster.settings import CLUSTER
from tests.cluster.shell import Shell, StepError
from tests.cluster.tools import SBIN

NAME = CLUSTER
BRIDGE = "br-mlflow-op"
# The rule names the project's bridge, so it does not affect the user's own containers. It rejects packets instead of
# dropping them: otherwise a pod that connects to a Service before kube-proxy knows it would hang for 30 s.
IPTABLES_RULE = (
    "DOCKER-USER",
    "-i",
    BRIDGE,
    "!",
    "-o",
    BRIDGE,
    "-m",
    "comment",
    "--comment",
    CLUSTER,
    "-j",
    "REJECT",
)
NETWORK_OPTIONS = (
    f"com.docker.network.bridge.name={BRIDGE}",
    "com.docker.network.bridge.enable_ip_masquerade=false",
)


def is_current(sh: Shell) -> bool:
    """Whether the network exists and traffic cannot leave it."""
    return exists(sh) and (not _can_filter(sh) or sh.succeeds(_iptables(), "-C", *IPTABLES_RULE))


def exists(sh: Shell) -> bool:
    """Whether the network exists."""
    return sh.succeeds("docker", "network", "inspect", NAME)


def ensure(sh: Shell) -> None:
    """Create the network in the first free range, and keep its traffic on this machine.

    An `--internal` network would also hide the API port that kind publishes on loopback. Instead, masquerading is off,
    and if this user has the permission, the kernel rejects packets that would leave the bridge.
    """
    if not exists(sh):
        for third in range(5, 30):
            subnet = f"198.18.{third}.0/24"
            options = [part for option in NETWORK_OPTIONS for part in ("-o", option)]
            if sh.succeeds("docker", "network", "create", "--subnet", subnet, *options, NAME):
                break
        else:
            raise StepError(
                "docker has no free range for the cluster's network between 198.18.5.0 and 198.18.29.0"
            )
    if _can_filter(sh) and not sh.succeeds(_iptables(), "-C", *IPTABLES_RULE):
        sh.run(_iptables(), "-I", *IPTABLES_RULE)


def remove(sh: Shell) -> None:
    """Remove the network and its rule."""
    if exists(sh):
        sh.run("docker", "network", "rm", NAME)
    while _can_filter(sh) and sh.succeeds(_iptables(), "-C", *IPTABLES_RULE):
        sh.run(_iptables(), "-D", *IPTABLES_RULE)


def address(sh: Shell, last: int) -> str:
    """Return the address in the network's range whose last octet is `last`."""
    config = json.loads(sh.output("docker", "network", "inspect", "-f", "{{json .IPAM.Config}}", NAME))
    return f"{config[0]['Subnet'].rsplit('.', 1)[0]}.{last}"


def _can_filter(sh: Shell) -> bool:
    """Whether the rule can be added: only as root, and only if the engine uses iptables."""
    return os.geteuid() == 0 and bool(_iptables()) and sh.succeeds(_iptables(), "-n", "-L", IPTABLES_RULE[0])


def _iptables() -> str:
    return shutil.which("iptables", path=f"{os.environ.get('PATH', '')}:{SBIN}") or ""
