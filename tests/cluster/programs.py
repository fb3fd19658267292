"""The Go programs that the project builds, by the module they come from."""

from collections.abc import Mapping

from tests.cluster.golang import BACKGROUND, Module

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""Names of the program `kubernetes` under which tests start it on the host, without a node."""

NODE = ("kubernetes", "etcd", "coredns", "local-path-provisioner", "pause", "kind")
CHARTS = ("helm-unittest", "helm-docs", "kubeconform")


def node(pins: Mapping[str, str]) -> Module:
    """Everything that runs on the node, and the tools that share most of its packages.

    One module has one version of client-go and its dependencies, so they are compiled once. Separate modules compiled
    four versions of client-go and took 126 s longer on two cores.
    """
    version = pins["KUBERNETES"]
    major, minor, _ = version.split(".")
    stamps = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return Module(
        "node",
        {
            "kubernetes": "./kubernetes",
            "etcd": "go.etcd.io/etcd/server/v3",
            "coredns": "./coredns",
            "local-path-provisioner": "github.com/rancher/local-path-provisioner",
            "pause": "./pause",
            "kind": "sigs.k8s.io/kind",
            "helm-unittest": "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
            "helm-docs": "github.com/norwoodj/helm-docs/cmd/helm-docs",
            "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
        },
        {f"k8s.io/component-base/version.{name}": value for name, value in stamps.items()},
        # It imports a package whose path differs from another program's in upper and lower case only.
        separate=frozenset({"local-path-provisioner"}),
    )


def minio() -> Module:
    """The embedded artifact store. It is compiled beside Kubernetes, for which everything else waits."""
    return Module("minio", {"minio": "github.com/minio/minio"}, priority=BACKGROUND)


def kwok() -> Module:
    """The controller that simulates nodes and pods. It needs a newer client-go than the node."""
    return Module("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"})


def toxiproxy() -> Module:
    """The proxy that delays and drops connections in tests."""
    module = Module("toxiproxy", {"toxiproxy": "github.com/Shopify/toxiproxy/v2/cmd/server"})
    version = module.version("github.com/Shopify/toxiproxy/v2")
    return Module(module.name, module.programs, {"github.com/Shopify/toxiproxy/v2.Version": version})
