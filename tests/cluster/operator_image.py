"""The operator's own image, built from this checkout. After a change of code it is on the node in seconds."""

import hashlib

from tests.cluster import node, registry, substitute_images
from tests.cluster.settings import Settings
from tests.cluster.shell import Failed, Shell

DIGITS = 12
BUILD_ARGUMENTS = ("IMAGE_PYTHON", "UV")


def is_current(s: Settings, sh: Shell) -> bool:
    """Whether the registry and the node hold the image of this checkout."""
    references = _references(s)
    return all(registry.digest(sh, one) for one in references) and not node.missing_images(sh, references)


def in_registry(s: Settings, sh: Shell) -> bool:
    """Whether the registry holds the image of this checkout, under both references."""
    version, content = _references(s)
    found = registry.digest(sh, content)
    return found != "" and found == registry.digest(sh, version)


def build(s: Settings, sh: Shell) -> None:
    """Build the image and store it in the registry, under its version and under a tag that names its content.

    The second one (`reference`) lets Kubernetes see a change: applying the same tag twice restarts no pod.
    """
    version, content = _references(s)
    stand_in = substitute_images.is_stand_in(sh, s.pins["IMAGE_PYTHON"])
    if stand_in:
        substitute_images.load(s, sh, substitute_images.python(s))
    flags = [part for name in BUILD_ARGUMENTS for part in ("--build-arg", f"{name}={s.pins[name]}")]
    # Next to stand-ins, the build reaches the package indexes as the host does.
    network = ("--network", "host") if stand_in else ()
    dockerfile = s.root / "operator" / "Dockerfile"
    sh.run("docker", "build", *network, *flags, "-f", dockerfile, "-t", content, "-t", version, s.root)
    registry.push(s, sh, content, version)
    for old in set(all_references(s, sh)) - {version, content}:
        sh.ok("docker", "rmi", old)


def pull(s: Settings, sh: Shell) -> None:
    """Have the node hold the image."""
    node.pull_images(sh, node.missing_images(sh, _references(s)))


def reference(s: Settings, sh: Shell) -> str:
    """The image of this checkout by its content, as in `...:0.1.0-dev.0123456789ab`.

    Raises Failed if it has not been built, so that tests never run against other code than the checkout's.
    """
    _, content = _references(s)
    if not registry.digest(sh, content):
        raise Failed(f"the operator's image of this checkout, {content}, is not built", "Run: make images")
    return content


def all_references(s: Settings, sh: Shell) -> list[str]:
    """Every build of the image that docker holds."""
    form = "{{.Repository}}:{{.Tag}}"
    return sh.out("docker", "images", "--format", form, s.pins["IMAGE_OPERATOR"]).splitlines()


def _references(s: Settings) -> tuple[str, str]:
    return s.operator_image, f"{s.operator_image}-dev.{_fingerprint(s)[:DIGITS]}"


def _fingerprint(s: Settings) -> str:
    seen = hashlib.sha256(repr([s.pins[name] for name in BUILD_ARGUMENTS]).encode())
    seen.update(substitute_images.python(s).fingerprint(s).encode())
    code = sorted(
        path
        for path in (s.root / "operator").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    for path in (s.root / "pyproject.toml", s.root / "uv.lock", *code):
        seen.update(str(path.relative_to(s.root)).encode() + path.read_bytes())
    return seen.hexdigest()
