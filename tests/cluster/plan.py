"""What `make cluster` makes sure of, in order. Each step asks first whether it is needed."""

from collections.abc import Iterator
from functools import partial

from . import (
    debian,
    engine,
    golang,
    network,
    node,
    operator_image,
    programs,
    published,
    registry,
    standins,
    tools,
)
from .progress import Step
from .settings import Settings
from .shell import Failed, Shell

IN_CLUSTER = (
    "IMAGE_MLFLOW",
    "IMAGE_POSTGRES",
    "IMAGE_MINIO",
    "IMAGE_SEAWEEDFS",
    "IMAGE_BUSYBOX",
    "IMAGE_TOXIPROXY",
)
ON_HOST = ("IMAGE_NODE", "IMAGE_REGISTRY", "IMAGE_PYTHON")


def host(s: Settings, sh: Shell) -> Iterator[Step]:
    """A docker engine, and a network that nothing leaves."""

    def missing() -> list[str]:
        return tools.missing_engine_packages(engine.answers(sh))

    yield Step("host packages", lambda: not missing(), lambda: tools.install_packages(sh, missing()))
    yield Step("docker engine", lambda: engine.answers(sh), lambda: engine.start(s, sh))
    yield Step("docker network", lambda: network.there(sh), lambda: network.make(sh))


def choose(s: Settings, sh: Shell) -> tuple[bool, str]:
    """Whether images are built here rather than pulled, and the sentence that says why."""
    if s.images != "auto":
        return s.images == "build", f"Images: {s.images}, as IMAGES says."
    references = [s.pins[name] for name in (*IN_CLUSTER, *ON_HOST)]
    if all(standins.is_published(sh, reference) for reference in references):
        return False, "Images: published ones, all here already."
    if all(standins.is_stand_in(sh, reference) for reference in references):
        return True, "Images: stand-ins built here earlier (IMAGES=pull replaces them by the published ones)."
    silent = published.silent_hosts(references)
    if silent:
        what = "does not answer" if len(silent) == 1 else "do not answer"
        return True, f"Images: built here, for {', '.join(silent)} {what} (IMAGES=pull forces pulling)."
    return False, "Images: published ones are pulled (IMAGES=build forces building)."


def host_tools(s: Settings, sh: Shell, build: bool) -> Iterator[Step]:
    """Programs on the host. Go builds them: it is one small download where it is missing."""
    if build and not golang.supported():
        raise Failed("images can be built here for x86-64 only", "Use a machine that reaches the registries.")
    yield from _compilers(s, sh, build)
    for name in ("kind", "helm"):
        yield _tool(s, sh, name)


def chart_tools(s: Settings, sh: Shell) -> Iterator[Step]:
    """What the chart's tests need, and no cluster."""
    yield from _compilers(s, sh, build=False)
    for name in ("helm", "kubeconform", "helm-docs", "helm-unittest"):
        yield _tool(s, sh, name)


def bench_tools(s: Settings, sh: Shell) -> Iterator[Step]:
    """What only the benchmarks need."""
    yield from _compilers(s, sh, build=False)
    yield _tool(s, sh, "kwok")


def python(s: Settings, sh: Shell) -> Iterator[Step]:
    """The project's own virtual environment, as uv.lock says."""
    yield from _uv(s, sh, build=False)
    yield Step("Python environment", lambda: tools.is_synced(s, sh), lambda: tools.sync(s, sh))


def pulled(s: Settings, sh: Shell) -> Iterator[Step]:
    """Published images, into docker: nothing else may reach past this machine."""
    for reference in (s.pins[name] for name in (*ON_HOST, *IN_CLUSTER)):
        yield Step(
            f"pull {reference.rsplit('/', 1)[1]}",
            partial(standins.is_published, sh, reference),
            partial(sh.run, "docker", "pull", "-q", reference),
            "Run it again, or with IMAGES=build to build a stand-in.",
        )


def built(s: Settings, sh: Shell) -> Iterator[Step]:
    """Stand-ins for all of them."""
    for suite in (s.pins["DEBIAN"], s.pins["DEBIAN_NODE"]):
        yield Step(
            f"Debian {suite}",
            partial(sh.ok, "docker", "image", "inspect", debian.reference(suite)),
            partial(debian.make, s, sh, suite),
        )
    for name, module in programs.contents(s.pins).items():
        yield Step(
            f"compile {name}",
            partial(module.built, s),
            partial(golang.build, s, sh, module),
        )
    for image in standins.all_images(s, sh):
        yield Step(
            f"build {image.reference.rsplit('/', 1)[1]}",
            partial(standins.there, s, sh, image),
            partial(standins.build, s, sh, image),
        )


def cluster(s: Settings, sh: Shell, build: bool) -> Iterator[Step]:
    """The registry with all images in it, the node, and the operator's image."""
    yield Step("kubectl", lambda: tools.has_kubectl(s), lambda: tools.make_kubectl(s, sh))
    yield Step("local registry", lambda: registry.running(sh), lambda: registry.start(s, sh))
    own = list(standins.own(s, sh))
    for image in own:
        yield Step(
            f"build {image.reference.rsplit('/', 1)[1]}",
            partial(standins.there, s, sh, image),
            partial(standins.build, s, sh, image),
        )
    workload = [*(s.pins[name] for name in IN_CLUSTER), *(image.reference for image in own)]
    control_plane = [image.reference for image in standins.control_plane(s, sh)] if build else []
    for reference in [*control_plane, *workload]:
        yield Step(
            f"push {reference.rsplit('/', 1)[1]}",
            partial(registry.holds, sh, reference),
            partial(registry.push, sh, reference),
        )
    yield Step("kind cluster", lambda: node.there(s, sh), lambda: node.make(s, sh))
    yield Step(
        "images on the node",
        lambda: not node.missing_images(sh, workload),
        lambda: node.pull_images(sh, node.missing_images(sh, workload)),
    )
    yield Step("names and volumes", partial(node.serves, s, sh), partial(node.settle, s, sh))
    yield operator(s, sh)


def earlier(s: Settings, sh: Shell, build: bool) -> Iterator[Step]:
    """Servers of earlier versions, in the registry: the node pulls what a test runs."""
    official = s.pins["IMAGE_MLFLOW"].partition(":")[0] + ":"
    for image in standins.earlier(s):
        name = image.reference.rsplit("/", 1)[1]
        if image.reference.startswith(official) and not build:
            pull = partial(sh.run, "docker", "pull", "-q", image.reference)
            yield Step(f"pull {name}", partial(standins.is_published, sh, image.reference), pull)
        else:
            yield Step(
                f"build {name}",
                partial(standins.there, s, sh, image),
                partial(standins.build, s, sh, image),
            )
        yield Step(
            f"push {name}",
            partial(registry.holds, sh, image.reference),
            partial(registry.push, sh, image.reference),
        )


def operator(s: Settings, sh: Shell) -> Step:
    """Docker itself knows best whether the operator's image is up to date."""
    return Step(
        "operator image",
        lambda: False,
        lambda: operator_image.make(s, sh, host_network=standins.is_stand_in(sh, s.pins["IMAGE_PYTHON"])),
        "If the cluster is not up: make cluster.",
    )


def _uv(s: Settings, sh: Shell, build: bool) -> Iterator[Step]:
    def missing() -> list[str]:
        return tools.missing_packages(build=build)

    yield Step("packages to build with", lambda: not missing(), lambda: tools.install_packages(sh, missing()))
    yield Step("uv", lambda: tools.has_venv(s), lambda: tools.make_venv(s, sh))


def _compilers(s: Settings, sh: Shell, build: bool) -> Iterator[Step]:
    yield from _uv(s, sh, build)
    yield Step("Go", lambda: golang.toolchain(s, sh) is not None, lambda: golang.install(s, sh))


def _tool(s: Settings, sh: Shell, name: str) -> Step:
    return Step(name, lambda: tools.has(s, name), lambda: tools.make(s, sh, name))
