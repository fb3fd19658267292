"""The Go programs the project builds: which module, at which version, and with which parts."""

from collections.abc import Mapping

from .golang import STRIP, Module

KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubeadm",
    "kubectl",
)
# The plugins that the cluster's Corefile names: CoreDNS with all of them takes three times as long.
# It runs them in this order, whatever the order in the Corefile. Plugin in the Corefile -> its package.
COREDNS = {
    "reload": "reload",
    "health": "health",
    "ready": "ready",
    "prometheus": "metrics",
    "errors": "errors",
    "log": "log",
    "cache": "cache",
    "loadbalance": "loadbalance",
    "template": "template",
    "kubernetes": "kubernetes",
    "loop": "loop",
    "forward": "forward",
}
PAUSE = """package main

import (
	"os"
	"os/signal"
	"syscall"
)

// The first process of a pod: it holds the namespaces, ends when told to, and buries orphans.
func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
"""


def tools(pins: Mapping[str, str]) -> dict[str, Module]:
    """What runs on the host."""
    helm = f"{STRIP} -X helm.sh/helm/v3/internal/version.version=v{pins['HELM']}"
    return {
        "kind": Module("sigs.k8s.io/kind", f"v{pins['KIND']}", {"kind": "sigs.k8s.io/kind"}),
        "helm": Module(
            "helm.sh/helm/v3", f"v{pins['HELM']}", {"helm": "helm.sh/helm/v3/cmd/helm"}, ldflags=helm
        ),
        "kwok": _command("sigs.k8s.io/kwok", f"v{pins['KWOK']}", "kwok"),
        "kubeconform": _command("github.com/yannh/kubeconform", f"v{pins['KUBECONFORM']}", "kubeconform"),
        "helm-docs": _command("github.com/norwoodj/helm-docs", f"v{pins['HELM_DOCS']}", "helm-docs"),
        "helm-unittest": _unittest(pins),
    }


def contents(pins: Mapping[str, str]) -> dict[str, Module]:
    """What runs inside the stand-ins."""
    etcd = "go.etcd.io/etcd/server/v3"
    volumes = "github.com/rancher/local-path-provisioner"
    minio = "github.com/minio/minio"
    proxy = "github.com/Shopify/toxiproxy/v2"
    return {
        "Kubernetes": _kubernetes(pins["KUBERNETES"]),
        "etcd": Module(etcd, f"v{pins['ETCD']}", {"etcd": etcd}),
        "CoreDNS": _coredns(pins["COREDNS"]),
        "local-path-provisioner": Module(
            volumes, f"v{pins['LOCAL_PATH_PROVISIONER']}", {"local-path-provisioner": volumes}
        ),
        "pause": Module("pause", "", {"pause": "."}, source=PAUSE),
        "MinIO": Module(minio, pins["MINIO_COMMIT"], {"minio": minio}),
        "Toxiproxy": Module(
            proxy, f"v{pins['TOXIPROXY']}", {"server": f"{proxy}/cmd/server"}, ldflags=_toxiproxy(pins)
        ),
    }


def _kubernetes(version: str) -> Module:
    major, minor, _ = version.split(".")
    stamps = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamps.items()]
    packages = {name: f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES}
    return Module(
        "k8s.io/kubernetes", f"v{version}", packages, ldflags=" ".join([STRIP, *flags]), staging=True
    )


def _coredns(version: str) -> Module:
    path = "github.com/coredns/coredns"
    imports = "".join(f'\t_ "{path}/plugin/{package}"\n' for package in COREDNS.values())
    names = ", ".join(f'"{name}"' for name in COREDNS)
    source = (
        f'package main\n\nimport (\n\t"{path}/core/dnsserver"\n\t"{path}/coremain"\n{imports})\n\n'
        f"func main() {{\n\tdnsserver.Directives = []string{{{names}}}\n\tcoremain.Run()\n}}\n"
    )
    return Module(path, f"v{version}", {"coredns": "."}, source=source)


def _toxiproxy(pins: Mapping[str, str]) -> str:
    return f"{STRIP} -X github.com/Shopify/toxiproxy/v2.Version={pins['TOXIPROXY']}"


def _unittest(pins: Mapping[str, str]) -> Module:
    """With the very Helm that renders elsewhere: one engine to believe, and most of it is compiled already."""
    path, fork = "github.com/helm-unittest/helm-unittest", "github.com/helm-unittest/yaml-jsonpath"
    directives = (
        f"require helm.sh/helm/v3 v{pins['HELM']}",
        f"replace github.com/vmware-labs/yaml-jsonpath => {fork} v{pins['HELM_UNITTEST_JSONPATH']}",
    )
    name = "helm-unittest"
    packages = {name: f"{path}/cmd/{name}"}
    return Module(path, f"v{pins['HELM_UNITTEST']}", packages, directives=directives)


def _command(path: str, version: str, name: str) -> Module:
    return Module(path, version, {name: f"{path}/cmd/{name}"})
