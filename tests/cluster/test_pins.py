"""A version is said once; where another file must say it too, both say the same."""

import re
import subprocess
from pathlib import Path

from mlflow_operator.model.versions import Images
from tests.cluster import golang, programs, registry, settings

PINS = settings.read_pins(settings.ROOT / "versions.env")


def test_every_reference_names_its_registry_and_a_tag() -> None:
    """Short names mean something else on every engine, and no tag means latest."""
    for name, reference in PINS.items():
        if name.startswith("IMAGE_") and name != "IMAGE_OPERATOR":
            assert re.fullmatch(r"[a-z0-9.]+\.[a-z]+/[a-z0-9./-]+:[\w.-]+", reference), name


def test_the_node_runs_the_kubernetes_that_is_built_for_it() -> None:
    """The tag of kind's image, and the pin of the stand-in."""
    assert PINS["IMAGE_NODE"].endswith(f":v{PINS['KUBERNETES']}")


def test_the_operators_dockerfile_stands_on_the_pinned_python() -> None:
    """`docker build` by hand must give what `make images` gives."""
    dockerfile = (settings.ROOT / "operator" / "Dockerfile").read_text()
    assert f"ARG IMAGE_PYTHON={PINS['IMAGE_PYTHON']}\n" in dockerfile


def test_a_store_is_what_its_reference_says() -> None:
    """The image by its tag, the stand-in by its wheel."""
    assert PINS["IMAGE_SEAWEEDFS"].endswith(f":{PINS['SEAWEEDFS']}")
    assert PINS["IMAGE_SEAWEEDFS"] == Images().seaweedfs


def test_the_stores_of_an_example_are_those_that_are_tested() -> None:
    """What runs beside the servers in manifests/examples, by the images that the tests use."""
    text = (settings.ROOT / "manifests" / "examples" / "shared-platform.yaml").read_text()
    images = set(re.findall(r"^ +image: (\S+)$", text, re.MULTILINE))
    assert images == {PINS["IMAGE_POSTGRES"], PINS["IMAGE_MINIO"]}


def test_kind_is_given_the_name_that_is_looked_for() -> None:
    """kind-config.yaml used by hand makes the same cluster."""
    assert f"name: {settings.CLUSTER}\n" in (settings.ROOT / "kind-config.yaml").read_text()


def test_a_mirror_is_asked_for_a_reference_without_its_host() -> None:
    """As containerd does it."""
    assert registry.repository("ghcr.io/mlflow/mlflow:v3") == ("mlflow/mlflow", "v3")
    assert registry.repository("docker.io/library/busybox:1.36") == ("library/busybox", "1.36")


def test_a_program_is_called_after_its_package_not_its_major_version() -> None:
    """As `go build` does it."""
    assert golang.package_name("go.etcd.io/etcd/server/v3") == "server"
    assert golang.package_name("k8s.io/kubernetes/cmd/kubelet") == "kubelet"


def test_program_built_another_way_gets_another_folder(tmp_path: Path) -> None:
    """A change of flags or of a pinned version leads to another folder in the cache."""
    s = settings.load({"HOME": str(tmp_path)})
    older = programs.node({**PINS, "KUBERNETES": "1.34.3"})
    assert older.home(s) != programs.node(PINS).home(s)
    assert programs.minio().home(s) != programs.toxiproxy().home(s)


def test_go_modules_pin_the_versions_that_references_name() -> None:
    """go.mod decides what is compiled; versions.env names the images."""
    node, kubernetes = programs.node(PINS), PINS["KUBERNETES"]
    assert node.version("k8s.io/kubernetes") == kubernetes
    for name in (*programs.CONTROL_PLANE, "kube-proxy"):
        assert PINS[f"IMAGE_{name.replace('-', '_').upper()}"].endswith(f"/{name}:v{kubernetes}")
    volumes = node.version("github.com/rancher/local-path-provisioner")
    assert PINS["IMAGE_LOCAL_PATH"].endswith(f":v{volumes}")
    proxy = programs.toxiproxy().version("github.com/Shopify/toxiproxy/v2")
    assert PINS["IMAGE_TOXIPROXY"].endswith(f":{proxy}")


def test_images_of_the_control_plane_are_those_that_kubeadm_starts() -> None:
    """As the built kubeadm lists them."""
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
