"""A version is said once; where another file must say it too, both say the same."""

import re

from mlflow_operator.core.versions import Images
from tests.cluster import golang, programs, registry, settings

PINS = settings.read_pins(settings.ROOT / "versions.env")


def test_every_reference_names_its_registry_and_a_tag() -> None:
    """Short names mean something else on every engine, and no tag means latest."""
    for name, reference in PINS.items():
        if name.startswith("IMAGE_") and name != "IMAGE_OPERATOR":
            assert re.fullmatch(r"[a-z0-9.]+\.[a-z]+/[a-z0-9./-]+:[\w.-]+", reference), name


def test_the_node_runs_the_kubernetes_that_is_built_for_it() -> None:
    """kind's image by its tag, the stand-in by its pin."""
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


def test_what_is_built_another_way_is_built_again() -> None:
    """A change of version, flags or source leads to another folder in the cache."""
    s = settings.load({"HOME": "/nowhere"})
    modules = {**programs.tools(PINS), **programs.contents(PINS)}
    newer = programs.contents({**PINS, "ETCD": "0.0.1"})
    assert len({module.home(s) for module in modules.values()}) == len(modules)
    assert newer["etcd"].home(s) != modules["etcd"].home(s)
    assert newer["MinIO"].home(s) == modules["MinIO"].home(s)
