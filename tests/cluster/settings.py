"""Settings from the environment and from versions.env: paths and pinned versions."""

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
    """The checkout, the cache, the pinned versions, and the source of images (`auto`, `pull` or `build`)."""

    root: Path
    cache: Path
    pins: Mapping[str, str]
    images: str

    @property
    def bin(self) -> Path:
        """Folder of the tools that the project installs; first on PATH for everything that `make` runs."""
        return self.cache / "bin"

    @property
    def kubeconfig(self) -> Path:
        """The cluster's kubeconfig. The user's own kubeconfig and its current context are never changed."""
        return self.cache / "kubeconfig"

    @property
    def operator_image(self) -> str:
        """Reference of the operator's image with the version in pyproject.toml, like in the chart."""
        project = tomllib.loads((self.root / "pyproject.toml").read_text())["project"]
        return f"{self.pins['IMAGE_OPERATOR']}:{project['version']}"


def read_pins(path: Path) -> dict[str, str]:
    """Parse the `NAME=value` lines of versions.env."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this checkout.

    `MLFLOW_OPERATOR_CACHE` sets the cache's folder (default `$XDG_CACHE_HOME/mlflow-operator`), `IMAGES` sets the
    source of images. A variable with the name of a pin, such as `IMAGE_NODE`, replaces it. Raises ValueError for an
    invalid IMAGES.
    """
    home = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    images = environ.get("IMAGES") or "auto"
    if images not in MODES:
        raise ValueError(f"IMAGES={images} is not supported. Set it to one of: {', '.join(MODES)}.")
    cache = Path(environ.get("MLFLOW_OPERATOR_CACHE") or home / "mlflow-operator").absolute()
    pins = {name: environ.get(name) or pinned for name, pinned in read_pins(ROOT / "versions.env").items()}
    return Settings(ROOT, cache, pins, images)
