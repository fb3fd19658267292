"""Where things are and which versions are meant: the environment and versions.env, read once."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "mlflow-operator"
ROOT = Path(__file__).resolve().parents[2]
MODES = ("auto", "pull", "build")


@dataclass(frozen=True)
class Settings:
    """The checkout, the cache, the pins, and where images come from (`auto`, `pull` or `build`)."""

    root: Path
    cache: Path
    pins: Mapping[str, str]
    images: str

    @property
    def bin(self) -> Path:
        """Tools the project installs for itself; first on PATH for all that `make` starts."""
        return self.cache / "bin"

    @property
    def kubeconfig(self) -> Path:
        """The cluster's kubeconfig. The user's own, and its current context, are never touched."""
        return self.cache / "kubeconfig"

    @property
    def operator_image(self) -> str:
        """The operator's image under the version in pyproject.toml, as the chart names it."""
        project = tomllib.loads((self.root / "pyproject.toml").read_text())["project"]
        return f"{self.pins['IMAGE_OPERATOR']}:{project['version']}"


def read_pins(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a versions.env."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings for this checkout.

    `MLFLOW_OPERATOR_CACHE` moves the cache (default `$XDG_CACHE_HOME/mlflow-operator`), `IMAGES` chooses
    where images come from. Raises ValueError for an IMAGES that is none of the three.
    """
    home = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    images = environ.get("IMAGES") or "auto"
    if images not in MODES:
        raise ValueError(f"IMAGES={images} is not known. Set it to one of: {', '.join(MODES)}.")
    cache = Path(environ.get("MLFLOW_OPERATOR_CACHE") or home / "mlflow-operator").absolute()
    return Settings(ROOT, cache, read_pins(ROOT / "versions.env"), images)
