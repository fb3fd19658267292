"""Go programs that the project builds, by Go module."""

from collections.abc import Mapping
from pathlib import Path

from tests.cluster.golang import BACKGROUND_NICENESS, Module
from tests.cluster.settings import Settings

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""Names under which tests start the program `kubernetes` on the host, without a node."""

NODE = ("kubernetes", "etcd", "coredns", "local-path-provisioner", "pause", "kind")
CLOUDNATIVEPG = "github.com/cloudnative-pg/cloudnative-pg"
"""Path of the Go module, which also contains the manifests of each release."""
CHARTS = ("helm-unittest", "helm-docs", "kubeconform")


def node(pins: Mapping[str, str]) -> Module:
    """All programs of the node, and tools that share most of its packages.

    One module has one version of client-go and its dependencies, so they are only compiled once. Separate modules
    compiled four versions of client-go and took 126 s longer on two cores.
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
        # It imports a package whose path differs from that of another program only in upper and lower case.
        separate=frozenset({"local-path-provisioner"}),
    )


def minio() -> Module:
    """The embedded artifact store. It is compiled in the background of Kubernetes, for which all other steps wait."""
    return Module("minio", {"minio": "github.com/minio/minio"}, niceness=BACKGROUND_NICENESS)


def kwok() -> Module:
    """The controller that simulates nodes and pods. It needs a newer client-go than the node."""
    return Module("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"})


def lint() -> Module:
    """The linters of prose and of GitHub workflows. Vale is built without its parsers of programming languages."""
    module = Module(
        "lint",
        {
            "vale": "github.com/vale-cli/vale/v3/cmd/vale",
            "actionlint": "github.com/rhysd/actionlint/cmd/actionlint",
        },
    )
    version = module.version("github.com/vale-cli/vale/v3")
    return Module(module.name, module.programs, {"main.version": version})


def toxiproxy() -> Module:
    """The proxy that delays and drops connections in tests."""
    module = Module("toxiproxy", {"toxiproxy": "github.com/Shopify/toxiproxy/v2/cmd/server"})
    version = module.version("github.com/Shopify/toxiproxy/v2")
    return Module(module.name, module.programs, {"github.com/Shopify/toxiproxy/v2.Version": version})


def cloudnativepg() -> Module:
    """CloudNativePG's operator, which also runs in the pods of its Clusters."""
    programs = {"manager": f"{CLOUDNATIVEPG}/cmd/manager"}
    return Module("cloudnativepg", programs, niceness=BACKGROUND_NICENESS)


def cloudnativepg_manifest(s: Settings) -> Path:
    """Return the path in the cache of the manifest that installs CloudNativePG."""
    module = cloudnativepg()
    return module.build_folder(s) / f"cnpg-{module.version(CLOUDNATIVEPG)}.yaml"
