"""The operator's own image, from this checkout to the node in seconds after a change of code."""

from . import node, registry
from .settings import Settings
from .shell import Shell

ID_DIGITS = 12


def make(s: Settings, sh: Shell, *, host_network: bool) -> None:
    """Build it, push it under its version and under a tag of its own content, and pull it on the node.

    The tag of its own (`reference`) lets Kubernetes see a change: the same tag twice rolls nothing out.
    `host_network` reaches the package registries as the machine does.
    """
    arguments = {name: s.pins[name] for name in ("IMAGE_PYTHON", "UV")}
    flags = [part for k, v in arguments.items() for part in ("--build-arg", f"{k}={v}")]
    network = ("--network", "host") if host_network else ()
    sh.run(
        "docker",
        "build",
        *network,
        *flags,
        "-f",
        s.root / "operator" / "Dockerfile",
        "-t",
        s.operator_image,
        s.root,
    )
    sh.run("docker", "tag", s.operator_image, reference(s, sh))
    both = [s.operator_image, reference(s, sh)]
    for one in both:
        if not registry.holds(sh, one):
            registry.push(sh, one)
    node.pull_images(sh, node.missing_images(sh, both))
    for old in set(all_references(s, sh)) - set(both):
        sh.ok("docker", "rmi", old)


def reference(s: Settings, sh: Shell) -> str:
    """The image by what is in it, as in `...:0.1.0-dev.0123456789ab`."""
    identity = sh.out("docker", "image", "inspect", "-f", "{{.Id}}", s.operator_image).removeprefix("sha256:")
    return f"{s.operator_image}-dev.{identity[:ID_DIGITS]}"


def all_references(s: Settings, sh: Shell) -> list[str]:
    """Every build of it that docker holds."""
    form = "{{.Repository}}:{{.Tag}}"
    return sh.out("docker", "images", "--format", form, s.pins["IMAGE_OPERATOR"]).splitlines()
