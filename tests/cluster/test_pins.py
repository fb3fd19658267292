"""Versions in versions.env match those in other files."""

import re
import subprocess
from pathlib import Path

from mlflow_operator.model.versions import Images
from tests.cluster import golang, programs, registry, settings

PINS = settings.read_pins(settings.ROOT / "versions.env")


def test_every_image_reference_has_registry_and_tag() -> None:
    """Container engines resolve short names differently, and a missing tag means latest."""
    for name, reference in PINS.items():
        if name.startswith("IMAGE_") and name != "IMAGE_OPERATOR":
            assert re.fullmatch(r"[a-z0-9.]+\.[a-z]+/[a-z0-9./-]+:[\w.-]+", reference), name


def test_node_image_has_the_pinned_kubernetes_version() -> None:
    """The tag of kind's image equals the version from which the stand-in is built."""
    assert PINS["IMAGE_NODE"].endswith(f":v{PINS['KUBERNETES']}")


def test_operator_dockerfile_uses_the_pinned_python_image() -> None:
    """A manual `docker build` must give the same result as `make images`."""
    dockerfile = (settings.ROOT / "operator" / "Dockerfile").read_text()
    assert f"ARG IMAGE_PYTHON={PINS['IMAGE_PYTHON']}\n" in dockerfile


def test_seaweedfs_pins_match() -> None:
    """The tag of the image, the version of the stand-in's wheel, and the operator's default image."""
    assert PINS["IMAGE_SEAWEEDFS"].endswith(f":{PINS['SEAWEEDFS']}")
    assert PINS["IMAGE_SEAWEEDFS"] == Images().seaweedfs


def test_example_stores_use_the_tested_images() -> None:
    """The stores in manifests/examples run the images that the tests use."""
    text = (settings.ROOT / "manifests" / "examples" / "platform.yaml").read_text()
    images = set(re.findall(r"^ +image: (\S+)$", text, re.MULTILINE))
    assert images == {PINS["IMAGE_POSTGRES"], PINS["IMAGE_MINIO"]}


def test_kind_config_has_the_cluster_name() -> None:
    """A manual `kind create cluster` with kind-config.yaml creates the same cluster."""
    assert f"name: {settings.CLUSTER}\n" in (settings.ROOT / "kind-config.yaml").read_text()


def test_repository_of_a_reference_has_no_host() -> None:
    """As containerd requests images from a mirror."""
    assert registry.repository("ghcr.io/mlflow/mlflow:v3") == ("mlflow/mlflow", "v3")
    assert registry.repository("docker.io/library/busybox:1.36") == ("library/busybox", "1.36")


def test_program_name_is_the_package_without_major_version() -> None:
    """As `go build` names programs."""
    assert golang.package_name("go.etcd.io/etcd/server/v3") == "server"
    assert golang.package_name("k8s.io/kubernetes/cmd/kubelet") == "kubelet"


def test_build_folder_depends_on_flags_and_versions(tmp_path: Path) -> None:
    """A change of flags or of a pinned version changes the folder in the cache."""
    s = settings.load({"HOME": str(tmp_path)})
    older = programs.node({**PINS, "KUBERNETES": "1.34.3"})
    assert older.build_folder(s) != programs.node(PINS).build_folder(s)
    assert programs.minio().build_folder(s) != programs.toxiproxy().build_folder(s)


def test_go_modules_have_the_versions_of_image_references() -> None:
    """go.mod determines what is compiled, and versions.env has the references of the images."""
    node, kubernetes = programs.node(PINS), PINS["KUBERNETES"]
    assert node.version("k8s.io/kubernetes") == kubernetes
    for name in (*programs.CONTROL_PLANE, "kube-proxy"):
        assert PINS[f"IMAGE_{name.replace('-', '_').upper()}"].endswith(f"/{name}:v{kubernetes}")
    volumes = node.version("github.com/rancher/local-path-provisioner")
    assert PINS["IMAGE_LOCAL_PATH"].endswith(f":v{volumes}")
    proxy = programs.toxiproxy().version("github.com/Shopify/toxiproxy/v2")
    assert PINS["IMAGE_TOXIPROXY"].endswith(f":{proxy}")
    cloudnativepg = programs.cloudnativepg().version(programs.CLOUDNATIVEPG)
    assert PINS["IMAGE_CLOUDNATIVEPG"].endswith(f":{cloudnativepg}")


def test_control_plane_images_match_kubeadm() -> None:
    """The images are those that `kubeadm config images list` prints."""
    kubeadm = programs.node(PINS).program(settings.load(), "kubernetes")
    listed = subprocess.run(
        ["kubeadm", "config", "images", "list", "--kubernetes-version", f"v{PINS['KUBERNETES']}"],
        executable=kubeadm, text=True, capture_output=True, check=True,
    )  # fmt: skip
    names = (
        "KUBE_APISERVER",
        "KUBE_CONTROLLER_MANAGER",
        "KUBE_SCHEDULER",
        "KUBE_PROXY",
        "COREDNS",
        "PAUSE",
        "ETCD",
    )
    assert set(listed.stdout.split()) == {PINS[f"IMAGE_{name}"] for name in names}


def test_environment_replaces_a_pin() -> None:
    """CI runs the same tests with other Kubernetes versions."""
    node = "docker.io/kindest/node:v1.30.13"
    assert settings.load({"IMAGE_NODE": node}).pins["IMAGE_NODE"] == node
    assert settings.load({}).pins["IMAGE_NODE"] == PINS["IMAGE_NODE"]
