"""The operator's image, built from this checkout. After a change of code it is on the node within seconds."""

import hashlib

from tests.cluster import node, registry, substitute_images
from tests.cluster.settings import Settings
from tests.cluster.shell import Shell, StepError

FINGERPRINT_CHARS = 12
BUILD_ARGUMENTS = ("IMAGE_PYTHON", "UV")


def is_current(s: Settings, sh: Shell) -> bool:
    """Whether the registry and the node have the image of this checkout."""
    references = _references(s)
    return all(registry.digest(sh, reference) for reference in references) and not node.missing_images(
        sh, references
    )


def is_in_registry(s: Settings, sh: Shell) -> bool:
    """Whether the registry has the image of this checkout under both references."""
    version, content = _references(s)
    digest = registry.digest(sh, content)
    return digest != "" and digest == registry.digest(sh, version)


def build(s: Settings, sh: Shell) -> None:
    """Build the image and push it to the registry, under its version and under a tag with a hash of its content.

    Because of the second tag (`reference`), Kubernetes notices a change: applying the same tag twice restarts no pod.
    """
    version, content = _references(s)
    stand_in = substitute_images.is_stand_in(sh, s.pins["IMAGE_PYTHON"])
    if stand_in:
        substitute_images.load(s, sh, substitute_images.python(s))
    flags = [part for name in BUILD_ARGUMENTS for part in ("--build-arg", f"{name}={s.pins[name]}")]
    # With stand-ins, the build reaches the package indexes through the host's network.
    network = ("--network", "host") if stand_in else ()
    dockerfile = s.root / "operator" / "Dockerfile"
    sh.run("docker", "build", *network, *flags, "-f", dockerfile, "-t", content, "-t", version, s.root)
    registry.push(s, sh, content, version)
    for old in set(all_references(s, sh)) - {version, content}:
        sh.succeeds("docker", "rmi", old)


def pull(s: Settings, sh: Shell) -> None:
    """Pull the image on the node."""
    node.pull_images(sh, node.missing_images(sh, _references(s)))


def reference(s: Settings, sh: Shell) -> str:
    """Return the reference of this checkout's image with a hash of its content, as in `...:0.1.0-dev.0123456789ab`.

    Raises StepError if it has not been built, so that tests cannot run against other code than the checkout's.
    """
    _, content = _references(s)
    if not registry.digest(sh, content):
        raise StepError(f"the operator's image of this checkout, {content}, is not built", "Run: make images")
    return content


def all_references(s: Settings, sh: Shell) -> list[str]:
    """Return all builds of the image in docker."""
    form = "{{.Repository}}:{{.Tag}}"
    return sh.output("docker", "images", "--format", form, s.pins["IMAGE_OPERATOR"]).splitlines()


def _references(s: Settings) -> tuple[str, str]:
    return s.operator_image, f"{s.operator_image}-dev.{_fingerprint(s)[:FINGERPRINT_CHARS]}"


def _fingerprint(s: Settings) -> str:
    digest = hashlib.sha256(repr([s.pins[name] for name in BUILD_ARGUMENTS]).encode())
    digest.update(substitute_images.python(s).fingerprint(s).encode())
    code = sorted(
        path
        for path in (s.root / "operator").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    for path in (s.root / "pyproject.toml", s.root / "uv.lock", *code):
        digest.update(str(path.relative_to(s.root)).encode() + path.read_bytes())
    return digest.hexdigest()
