"""The local registry stores images that docker has built, and the node pulls the same images."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import node, registry, settings
from tests.cluster.shell import Shell, StepError

S = settings.load()


@pytest.fixture
def sh(tmp_path: Path) -> Shell:
    """A shell with the project's PATH."""
    return Shell(tmp_path / "log")


@pytest.fixture
def image(sh: Shell, tmp_path: Path) -> Iterator[str]:
    """An image with a label and one small file, which is unique for each run."""
    name = f"registry.test/pushed/{uuid.uuid4().hex[:8]}:1"
    (tmp_path / "content").write_text(name)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY content /\nLABEL of=test\n")
    sh.run("docker", "build", "-q", "-t", name, tmp_path)
    yield name
    sh.succeeds("docker", "rmi", "-f", name)
    if sh.succeeds("docker", "container", "inspect", node.CONTAINER):
        sh.succeeds("docker", "exec", node.CONTAINER, "ctr", "-n", "k8s.io", "images", "rm", name)


def test_pushed_image_equals_dockers_image(sh: Shell, image: str) -> None:
    """It has the digest of docker's image configuration, under every reference, and the same labels."""
    other = image.replace("/pushed/", "/pushed/other/")
    assert registry.labels(sh, image) is None
    registry.push(S, sh, image, other)
    assert registry.has_docker_image(sh, image)
    assert registry.digest(sh, image) == registry.digest(sh, other) != ""
    assert registry.labels(sh, other) == {"of": "test"}


def test_pulled_image_equals_pushed_image(sh: Shell, image: str) -> None:
    """Layers are stored without compression; docker verifies their digests."""
    registry.push(S, sh, image)
    before = sh.output("docker", "image", "inspect", "-f", "{{.Id}}", image)
    sh.run("docker", "rmi", "-f", image)
    registry.pull(sh, image)
    assert sh.output("docker", "image", "inspect", "-f", "{{.Id}}", image) == before


def test_node_pulls_the_pushed_image(sh: Shell, image: str) -> None:
    """`missing_images` reports it before the pull, and not afterwards."""
    registry.push(S, sh, image)
    assert node.missing_images(sh, [image]) == [image]
    node.pull_images(sh, [image])
    assert node.missing_images(sh, [image]) == []


def test_missing_image_has_no_digest(sh: Shell) -> None:
    """No error: a missing image is built or pulled."""
    assert registry.digest(sh, "registry.test/pushed/absent:1") == ""


def test_unavailable_registry_is_reported_with_a_hint(
    sh: Shell, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A StepError with a hint instead of a traceback."""
    monkeypatch.setattr(registry, "_host", lambda _: "127.0.0.1:9")
    with pytest.raises(StepError, match="the local registry does not answer") as failed:
        registry.push(S, sh, image)
    assert failed.value.hint == f"docker logs {registry.NAME}"
