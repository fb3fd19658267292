"""The local registry holds what docker built, and the node pulls exactly that."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import node, registry, settings
from tests.cluster.shell import Failed, Shell

S = settings.load()


@pytest.fixture
def sh(tmp_path: Path) -> Shell:
    """A shell with the project's PATH."""
    return Shell(tmp_path / "log")


@pytest.fixture
def image(sh: Shell, tmp_path: Path) -> Iterator[str]:
    """An image of one small file that no other run has, with a label."""
    name = f"registry.test/pushed/{uuid.uuid4().hex[:8]}:1"
    (tmp_path / "content").write_text(name)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY content /\nLABEL of=test\n")
    sh.run("docker", "build", "-q", "-t", name, tmp_path)
    yield name
    sh.ok("docker", "rmi", "-f", name)
    if sh.ok("docker", "container", "inspect", node.CONTAINER):
        sh.ok("docker", "exec", node.CONTAINER, "ctr", "-n", "k8s.io", "images", "rm", name)


def test_pushed_image_is_the_one_that_docker_has(sh: Shell, image: str) -> None:
    """By its configuration's digest, under every reference, and with its labels."""
    other = image.replace("/pushed/", "/pushed/other/")
    assert registry.labels(sh, image) is None
    registry.push(S, sh, image, other)
    assert registry.holds(sh, image)
    assert registry.digest(sh, image) == registry.digest(sh, other) != ""
    assert registry.labels(sh, other) == {"of": "test"}


def test_docker_gets_the_same_image_back(sh: Shell, image: str) -> None:
    """Layers are stored without compression; docker verifies their digests."""
    registry.push(S, sh, image)
    before = sh.out("docker", "image", "inspect", "-f", "{{.Id}}", image)
    sh.run("docker", "rmi", "-f", image)
    registry.pull(sh, image)
    assert sh.out("docker", "image", "inspect", "-f", "{{.Id}}", image) == before


def test_node_pulls_the_pushed_image(sh: Shell, image: str) -> None:
    """And notices that it does not hold it yet."""
    registry.push(S, sh, image)
    assert node.missing_images(sh, [image]) == [image]
    node.pull_images(sh, [image])
    assert node.missing_images(sh, [image]) == []


def test_image_that_the_registry_does_not_hold_has_no_digest(sh: Shell) -> None:
    """It is built or pulled; nothing fails."""
    assert registry.digest(sh, "registry.test/pushed/absent:1") == ""


def test_registry_that_is_down_is_named_with_the_next_action(
    sh: Shell, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with a traceback."""
    monkeypatch.setattr(registry, "_host", lambda _: "127.0.0.1:9")
    with pytest.raises(Failed, match="the local registry does not answer") as failed:
        registry.push(S, sh, image)
    assert failed.value.hint == f"docker logs {registry.NAME}"
