"""The steps of each command: how each is checked, what it runs, and which steps it needs.

    host packages -> docker engine -> network -> local registry
    uv -> Go -> compile the node -> node image -> kind cluster -> images on the node
           |
           -> compile MinIO -> MinIO image

Everything else (Debian base images, images, the Python environment) runs in parallel to the compiler.
"""

from collections.abc import Iterable, Iterator
from functools import partial

from tests.cluster import (
    debian,
    engine,
    golang,
    network,
    node,
    operator_image,
    programs,
    published_images,
    registry,
    substitute_images,
    tools,
)
from tests.cluster.golang import Module
from tests.cluster.progress import Step
from tests.cluster.settings import Settings
from tests.cluster.shell import Shell, StepError
from tests.cluster.substitute_images import StandIn

DEMO_IMAGES = ("IMAGE_MLFLOW", "IMAGE_POSTGRES", "IMAGE_MINIO", "IMAGE_BUSYBOX")
"""Images that `make demo` runs on the node besides the operator. Other images are built while the first tests run."""
TEST_IMAGES = ("IMAGE_SEAWEEDFS", "IMAGE_TOXIPROXY")
CLOUDNATIVEPG_IMAGES = ("IMAGE_CLOUDNATIVEPG", "IMAGE_CLOUDNATIVEPG_POSTGRES")
HOST_IMAGES = ("IMAGE_NODE", "IMAGE_REGISTRY", "IMAGE_PYTHON")

PACKAGES, ENGINE, NETWORK, REGISTRY = "host packages", "docker engine", "docker network", "local registry"
UV, GO, CLIENTS, ENVIRONMENT = "uv", "Go", "kubectl and helm", "Python environment"
COMPILE_NODE = "compile Kubernetes, etcd and CoreDNS"
DOWNLOAD_MINIO, COMPILE_MINIO = "download MinIO's dependencies", "compile MinIO"
COMPILE_TOXIPROXY, COMPILE_CLOUDNATIVEPG = "compile Toxiproxy", "compile CloudNativePG"
CLUSTER, SERVICES = "kind cluster", "DNS and volumes"
OPERATOR, OPERATOR_ON_NODE = "operator image", "operator image on the node"
LOCAL_STEPS = (PACKAGES, ENGINE, NETWORK)


def host(s: Settings, *, build: bool) -> Iterator[Step]:
    """A docker engine, and an isolated network. `build`: whether images are built instead of pulled."""

    def missing(sh: Shell) -> list[str]:
        return tools.missing_packages(engine_answers=engine.is_available(sh), build=build)

    yield Step(
        PACKAGES,
        lambda sh: not missing(sh),
        lambda sh: tools.install_packages(sh, missing(sh)),
    )
    yield Step(ENGINE, engine.is_suitable, partial(engine.start, s), (PACKAGES,))
    yield Step(NETWORK, network.is_current, network.ensure, (ENGINE,))


def choose_images(s: Settings, sh: Shell) -> tuple[bool, str]:
    """Return whether images are built instead of pulled, and a sentence with the reason."""
    if s.images != "auto":
        return s.images == "build", f"Images: {s.images} (set by IMAGES)."
    references = [s.pins[name] for name in (*DEMO_IMAGES, *HOST_IMAGES)]
    if all(substitute_images.is_published(sh, reference) for reference in references):
        return False, "Images: published ones, already pulled."
    if (registry.data(s) / "docker").exists() and substitute_images.is_stand_in(sh, s.pins["IMAGE_NODE"]):
        return True, "Images: stand-ins, already built (IMAGES=pull replaces them with published images)."
    unreachable = published_images.unreachable_hosts(references)
    if unreachable:
        verb = "does not answer" if len(unreachable) == 1 else "do not answer"
        return (
            True,
            f"Images: building stand-ins because {', '.join(unreachable)} {verb} (IMAGES=pull forces pulling).",
        )
    return False, "Images: pulling published ones (IMAGES=build forces building)."


def up(s: Settings, sh: Shell, *, build: bool) -> Iterator[Step]:
    """The cluster with everything that `make demo` needs."""
    if build and not golang.is_supported():
        raise StepError(
            "images can only be built on x86-64", "Use a machine that can reach the image registries."
        )
    yield from toolchain(s, sh)
    yield from python_environment(s, tools.DEMO_GROUPS)
    if build:
        yield from _build_images(s)
    else:
        yield _compile_programs(s, "compile kind", programs.node(s.pins), ("kind",), (GO,), link=True)
        yield from _pull_images(s, (*HOST_IMAGES, *DEMO_IMAGES))
        yield Step(
            REGISTRY,
            registry.is_running,
            partial(registry.start, s),
            (*LOCAL_STEPS, _pull_name(s, "IMAGE_REGISTRY")),
        )
    yield from _cluster(s, build=build)


def demo(s: Settings) -> Iterator[Step]:
    """Install the operator as described in the README, while the artifact store is still being built."""
    python = s.root / ".venv" / "bin" / "python"
    command = (python, "-m", "tests.demo", "install")
    yield Step(
        "install the operator",
        lambda _: False,
        lambda sh: sh.run(*command, cwd=s.root, env={"KUBECONFIG": str(s.kubeconfig)}),
        (ENVIRONMENT, SERVICES, OPERATOR_ON_NODE),
    )
    # Both training programs start in parallel, and each would compile MLflow and scikit-learn.
    imports = (python, "-c", "import tests.demo.churn, tests.demo.iris, mlflow.sklearn")
    yield Step(
        "compile the demo's Python packages",
        lambda _: any(python.parents[1].glob("lib/python*/site-packages/mlflow/__pycache__")),
        lambda sh: sh.run("nice", "-n", str(golang.BACKGROUND_NICENESS), *imports, cwd=s.root),
        (ENVIRONMENT, COMPILE_NODE),
    )


def build_tools(s: Settings, sh: Shell) -> Iterator[Step]:
    """uv and Go. If Go is already installed, its step need not wait for uv."""
    packages = (PACKAGES,) if tools.missing_python_packages() else ()
    yield Step(
        UV,
        lambda _: not tools.missing_python_packages() and tools.has_venv(s),
        partial(_install_uv, s),
        packages,
    )
    go = () if golang.toolchain(s, sh) else (UV,)
    yield Step(GO, lambda sh: golang.toolchain(s, sh) is not None, partial(golang.install, s), go)


def toolchain(s: Settings, sh: Shell) -> Iterator[Step]:
    """uv, Go, kubectl and helm."""
    yield from build_tools(s, sh)
    yield Step(CLIENTS, lambda _: tools.has_clients(s), partial(tools.install_clients, s), (UV,))


def python_environment(s: Settings, groups: tuple[str, ...] = ()) -> Iterator[Step]:
    """The project's virtual environment from uv.lock, with all packages or with those of `groups`."""
    yield Step(ENVIRONMENT, partial(tools.is_synced, s, groups), partial(tools.sync, s, groups), (UV,))


def control_plane(s: Settings, sh: Shell) -> Iterator[Step]:
    """etcd and the control plane's programs on PATH, for tests without a cluster."""
    yield from toolchain(s, sh)
    yield _compile_node(s)


def test_tools(s: Settings, sh: Shell) -> Iterator[Step]:
    """Programs that only tests and benchmarks use."""
    yield from toolchain(s, sh)
    charts = "compile helm-unittest, helm-docs and kubeconform"
    yield _compile_programs(s, charts, programs.node(s.pins), programs.CHARTS, (GO,), link=True)
    yield _compile_programs(s, "compile kwok", programs.kwok(), ("kwok",), (GO, charts), link=True)


def lint_tools(s: Settings, sh: Shell) -> Iterator[Step]:
    """Linters that are Go programs."""
    yield from build_tools(s, sh)
    module = programs.lint()
    yield _compile_programs(s, "compile Vale and actionlint", module, module.programs, (GO,), link=True)


def test_images(s: Settings, sh: Shell, *, build: bool) -> Iterator[Step]:
    """Images that only tests use: in docker, and in the registry, from which the node pulls them."""
    if build:
        yield _compile_programs(s, COMPILE_TOXIPROXY, programs.toxiproxy(), ("toxiproxy",), (GO,), link=False)
        yield _build_image(s, substitute_images.toxiproxy(s), COMPILE_TOXIPROXY)
        yield _build_image(s, substitute_images.seaweedfs(s))
        yield from (
            _load_image(s, image)
            for image in (substitute_images.toxiproxy(s), substitute_images.seaweedfs(s))
        )
    else:
        yield from (_pull(s, s.pins[name]) for name in TEST_IMAGES)
    for image in (substitute_images.pgbouncer(s), substitute_images.client(s, sh)):
        yield _build_image(s, image)
        yield _load_image(s, image)
    official = s.pins["IMAGE_MLFLOW"].partition(":")[0] + ":"
    for image in substitute_images.earlier_mlflow(s):
        if image.reference.startswith(official) and not build:
            yield _pull(s, image.reference)
        else:
            yield _build_image(s, image)


def cloudnativepg_images(s: Settings, *, build: bool) -> Iterator[Step]:
    """CloudNativePG's images in the registry. Its test also needs the manifests in the Go module."""
    module, manifest = programs.cloudnativepg(), programs.cloudnativepg_manifest(s)
    yield Step(
        "copy CloudNativePG's manifest",
        lambda _: manifest.exists(),
        lambda sh: golang.copy_file(s, sh, module, programs.CLOUDNATIVEPG, f"releases/{manifest.name}"),
        (GO,),
    )
    if build:
        yield _compile_programs(s, COMPILE_CLOUDNATIVEPG, module, ("manager",), (GO,), link=False)
        for image in substitute_images.cloudnativepg(s):
            yield _build_image(s, image, COMPILE_CLOUDNATIVEPG)
    else:
        yield from (_pull(s, s.pins[name]) for name in CLOUDNATIVEPG_IMAGES)


def docker_images(s: Settings) -> Iterator[Step]:
    """Images in docker that tests run outside the cluster."""
    images = (
        substitute_images.busybox,
        substitute_images.minio,
        substitute_images.mlflow,
        substitute_images.postgres,
        substitute_images.python,
        substitute_images.registry_image,
    )
    yield from (_load_image(s, make(s)) for make in images)
    yield Step(
        f"{OPERATOR} in docker",
        lambda sh: registry.has_docker_image(sh, s.operator_image),
        lambda sh: registry.pull(sh, s.operator_image),
    )


def operator(s: Settings) -> Iterator[Step]:
    """The operator's image in the registry and on the node."""
    hint = "If the cluster does not exist, run: make cluster."
    yield Step(
        OPERATOR, partial(operator_image.is_in_registry, s), partial(operator_image.build, s), (), hint
    )
    yield Step(
        OPERATOR_ON_NODE,
        partial(operator_image.is_current, s),
        partial(operator_image.pull, s),
        (OPERATOR,),
        hint,
    )


def _build_images(s: Settings) -> Iterator[Step]:
    """Stand-ins for all images of the demo, in the local registry."""
    trixie, bookworm = s.pins["DEBIAN"], s.pins["DEBIAN_NODE"]
    for suite in (trixie, bookworm):
        yield _debian(s, suite)
    yield from _registry(s, trixie)
    yield _compile_node(s)
    yield Step(
        DOWNLOAD_MINIO,
        lambda _: programs.minio().is_built(s, ("minio",)),
        lambda sh: golang.download(s, sh, programs.minio(), ("minio",)),
        (GO,),
    )
    yield _compile_programs(s, COMPILE_MINIO, programs.minio(), ("minio",), (DOWNLOAD_MINIO,), link=False)
    yield _build_image(s, substitute_images.busybox(s), _debian_name(trixie))
    yield _build_image(s, substitute_images.postgres(s), _debian_name(trixie))
    yield _build_image(s, substitute_images.python(s), _debian_name(trixie))
    yield _build_image(s, substitute_images.mlflow(s), f"build {substitute_images.python(s).name}")
    for image in substitute_images.control_plane(s):
        yield _build_image(s, image, COMPILE_NODE, _debian_name(bookworm))
    yield _build_image(s, substitute_images.node(s), COMPILE_NODE, CLIENTS, _debian_name(bookworm))
    yield _build_image(s, substitute_images.minio(s), COMPILE_MINIO, _debian_name(trixie))


def _cluster(s: Settings, *, build: bool) -> Iterator[Step]:
    """The node, its images, and the operator's image."""
    if build:
        created_from = [f"build {substitute_images.node(s).name}"]
        created_from += [f"build {image.name}" for image in substitute_images.control_plane(s)]
    else:
        created_from = ["compile kind", _pull_name(s, "IMAGE_NODE")]

    def ensure(sh: Shell) -> None:
        if build:
            substitute_images.load(s, sh, substitute_images.node(s))
        node.ensure(s, sh)

    yield Step(
        CLUSTER,
        partial(node.is_current, s),
        ensure,
        (*LOCAL_STEPS, REGISTRY, COMPILE_NODE, CLIENTS, *created_from),
        "Run the command again; `make clean` first creates the cluster from scratch.",
    )
    yield Step(SERVICES, partial(node.services_are_ready, s), partial(node.wait_for_services, s), (CLUSTER,))
    python = f"build {substitute_images.python(s).name}" if build else _pull_name(s, "IMAGE_PYTHON")
    image, on_node = operator(s)
    yield Step(image.name, image.is_done, image.run, (*LOCAL_STEPS, REGISTRY, python))
    yield Step(on_node.name, on_node.is_done, on_node.run, (CLUSTER, OPERATOR))
    for name in DEMO_IMAGES:
        reference = s.pins[name]
        yield _pull_on_node(
            reference, f"build {reference.rsplit('/', 1)[1]}" if build else _pull_name(s, name)
        )


def _debian(s: Settings, suite: str) -> Step:
    return Step(
        _debian_name(suite),
        lambda _: debian.archive(s, suite).exists(),
        lambda sh: debian.bootstrap(s, sh, suite),
        (PACKAGES,),
    )


def _debian_name(suite: str) -> str:
    return f"install Debian {suite}"


def _registry(s: Settings, suite: str) -> Iterator[Step]:
    image = substitute_images.registry_image(s)

    def load(sh: Shell) -> None:
        saved = s.cache / f"registry-{image.fingerprint(s)}.tar"
        if not saved.exists():
            substitute_images.build_in_docker(s, sh, image)
            unfinished = saved.with_suffix(".part")
            sh.run("docker", "save", "-o", unfinished, image.reference)
            unfinished.rename(saved)
        sh.run("docker", "load", "-i", saved)

    name = f"build {image.name}"
    needs = (*LOCAL_STEPS, _debian_name(suite))
    yield Step(name, lambda sh: substitute_images.is_in_docker(s, sh, image), load, needs)
    yield Step(REGISTRY, registry.is_running, partial(registry.start, s), (NETWORK, name))


def _compile_node(s: Settings) -> Step:
    module = programs.node(s.pins)

    def compile_all(sh: Shell) -> None:
        golang.build(s, sh, module, programs.NODE)
        tools.build_and_link(s, sh, module, ("kind",))
        tools.link_kubernetes(s)

    def done(_: Shell) -> bool:
        return (
            module.is_built(s, programs.NODE)
            and tools.has_programs(s, module, ("kind",))
            and tools.has_kubernetes(s)
        )

    return Step(COMPILE_NODE, done, compile_all, (GO,))


def _compile_programs(
    s: Settings, name: str, module: Module, names: Iterable[str], needs: tuple[str, ...], *, link: bool
) -> Step:
    """`link`: whether the programs are put on PATH."""
    program_names = tuple(names)
    if link:
        return Step(
            name,
            lambda _: tools.has_programs(s, module, program_names),
            lambda sh: tools.build_and_link(s, sh, module, program_names),
            needs,
        )
    return Step(
        name,
        lambda _: module.is_built(s, program_names),
        lambda sh: golang.build(s, sh, module, program_names),
        needs,
    )


def _build_image(s: Settings, image: StandIn, *needs: str) -> Step:
    return Step(
        f"build {image.name}",
        lambda sh: substitute_images.is_current(s, sh, image),
        lambda sh: substitute_images.build(s, sh, image),
        (*LOCAL_STEPS, REGISTRY, *needs),
    )


def _load_image(s: Settings, image: StandIn) -> Step:
    return Step(
        f"{image.name} in docker",
        lambda sh: substitute_images.is_in_docker(s, sh, image),
        lambda sh: substitute_images.load(s, sh, image),
        (f"build {image.name}",),
    )


def _pull_on_node(reference: str, image_step: str) -> Step:
    return Step(
        f"{reference.rsplit('/', 1)[1]} on the node",
        lambda sh: not node.missing_images(sh, [reference]),
        lambda sh: node.pull_images(sh, [reference]),
        (CLUSTER, image_step),
    )


def _pull_images(s: Settings, names: Iterable[str]) -> Iterator[Step]:
    """Published images. Only docker downloads them; the node pulls from the local registry."""
    for name in names:
        yield _pull(s, s.pins[name], to_registry=name not in HOST_IMAGES)


def _pull(s: Settings, reference: str, *, to_registry: bool = True) -> Step:
    def done(sh: Shell) -> bool:
        return substitute_images.is_published(sh, reference) and (
            not to_registry or registry.has_docker_image(sh, reference)
        )

    def pull(sh: Shell) -> None:
        sh.run("docker", "pull", "-q", reference)
        if to_registry:
            registry.push(s, sh, reference)

    needs = (*LOCAL_STEPS, REGISTRY) if to_registry else LOCAL_STEPS
    hint = "Run the command again, or with IMAGES=build to build a stand-in."
    return Step(f"pull {reference.rsplit('/', 1)[1]}", done, pull, needs, hint)


def _pull_name(s: Settings, name: str) -> str:
    return f"pull {s.pins[name].rsplit('/', 1)[1]}"


def _install_uv(s: Settings, sh: Shell) -> None:
    missing = tools.missing_python_packages()
    if missing:
        tools.install_packages(sh, missing)
    tools.create_venv(s, sh)
