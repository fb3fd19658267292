"""Installs a release of MLflow and its drivers: `install.py VERSION all|server`."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

CLIENT_ONLY = {"matplotlib", "pyarrow", "scikit-learn", "scipy", "skops", "docker", "huey"}
"""Packages (half a gigabyte) that only clients and the server's background jobs import."""

COMPILED_MODULES = (
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
"""Modules of a server and of a migration. The web server, gunicorn or uvicorn, depends on the release."""

PACKAGES_WITH_TESTS = ("matplotlib", "numpy", "pandas", "pyarrow", "scipy", "sklearn")
"""Packages that contain their tests: 3000 files that nothing imports."""

PARTS = {"3.18.0": "3.17.2"}
"""Release -> the release whose mlflow-skinny and mlflow-tracing are installed instead, because the package index lacks
its own. The package `mlflow` contains all modules of a server, so only the requirements are those of the other release:
`mlflow==3.18.0` is installed with --no-deps over 3.17.2. MLflow warns about the different versions when it is imported.
Remove the entry once the index has the packages."""

DRIVERS = ("psycopg[binary]", "psycopg2-binary", "boto3", "prometheus-flask-exporter", "Flask-WTF<2")


def install(*requirements: str) -> None:
    """Install packages in addition to Debian's packages, which are not changed."""
    options = ("-q", "--system", "--break-system-packages", "--no-cache")
    authorities = {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}
    subprocess.run(
        ["uv", "pip", "install", *options, *requirements], check=True, env={**os.environ, **authorities}
    )


def remove_tests() -> None:
    """Remove the tests of PACKAGES_WITH_TESTS. Fewer files make every copy of the image faster."""
    importlib.invalidate_caches()
    for name in PACKAGES_WITH_TESTS:
        spec = importlib.util.find_spec(name)
        for folder in spec.submodule_search_locations or () if spec else ():
            for tests in sorted(Path(folder).rglob("tests")):
                shutil.rmtree(tests, ignore_errors=True)


def compile_imported() -> None:
    """Import the modules once, to store the bytecode that a server uses: a sixth of all, and it halves the startup."""
    importlib.invalidate_caches()
    for name in COMPILED_MODULES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            print(f"not in this release: {error}")


def server_requirements(packages: list[str]) -> list[str]:
    """Return the requirements of these installed packages without CLIENT_ONLY."""
    requirements = [Requirement(line) for name in packages for line in metadata.requires(name) or ()]
    return [
        f"{requirement.name}{requirement.specifier}"
        for requirement in requirements
        if requirement.name not in {*CLIENT_ONLY, *packages}
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]


def main(version: str, packages: str) -> None:
    """Install MLflow. Its packages (three since 3.0) are released together, so all have one version; see PARTS."""
    major = int(version.split(".", maxsplit=1)[0])
    names = ["mlflow", "mlflow-skinny", *(["mlflow-tracing"] if major > 2 else [])]
    pinned = [f"{name}=={PARTS.get(version, version)}" for name in names]
    # MLflow 2 does not start with SQLAlchemy 2.1.
    limits = ["sqlalchemy<2.1"] if major == 2 else []
    if packages == "all":
        install(*pinned, *limits, *DRIVERS)
    else:
        install("--no-deps", *pinned)
        importlib.invalidate_caches()
        install(*server_requirements(names), *limits, *DRIVERS)
    if version in PARTS:
        install("--no-deps", f"mlflow=={version}")
    remove_tests()
    compile_imported()


if __name__ == "__main__":
    main(*sys.argv[1:])
