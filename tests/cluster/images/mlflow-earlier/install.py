"""Installs one release of MLflow with what its server needs, at the versions that the release itself asks for."""

import importlib
import subprocess
import sys
from importlib import metadata

from pip._vendor.packaging.requirements import Requirement

LEFT_OUT = {"matplotlib", "pyarrow", "scikit-learn", "scipy", "skops", "docker", "huey"}
"""Half a gigabyte that only data scientists' own code imports, or the server's background jobs."""

LOADED = (
    "boto3",
    "gunicorn.app.wsgiapp",
    "mlflow.cli",
    "mlflow.db",
    "mlflow.server",
    "mlflow.server.fastapi_app",
    "psycopg",
    "psycopg2",
    "sqlalchemy.dialects.postgresql",
    "uvicorn.main",
)
"""By a server and by a migration; which of the two servers there is depends on the release."""

DRIVERS = ("psycopg[binary]", "psycopg2-binary", "boto3", "prometheus-flask-exporter", "Flask-WTF<2")


def install(*what: str) -> None:
    """Beside what Debian installed, which pip may not replace; nothing is kept that could be downloaded again."""
    options = ("-q", "--no-cache-dir", "--no-compile", "--ignore-installed")
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *what], check=True)


def load() -> None:
    """Once, which leaves the bytecode of what is used, a sixth of all: each start takes half the time."""
    importlib.invalidate_caches()
    for name in LOADED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            print(f"not in this release: {error}")


def main(version: str) -> None:
    """MLflow's own packages are released together and pinned together; there are three from 3.0 on."""
    ours = [
        "mlflow",
        "mlflow-skinny",
        *(["mlflow-tracing"] if int(version.split(".", maxsplit=1)[0]) > 2 else []),
    ]
    install("--no-deps", *(f"{name}=={version}" for name in ours))
    wanted = [Requirement(line) for name in ours for line in metadata.requires(name) or ()]
    needed = [
        f"{each.name}{each.specifier}"
        for each in wanted
        if each.name not in {*LEFT_OUT, *ours}
        and (each.marker is None or each.marker.evaluate({"extra": ""}))
    ]
    # MLflow 2 was never tried with SQLAlchemy 2.1, and does not start with it
    older = ["sqlalchemy<2.1"] if version.startswith("2.") else []
    install(*needed, *older, *DRIVERS)
    load()


main(sys.argv[1])
