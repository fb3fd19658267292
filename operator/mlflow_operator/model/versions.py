"""What the operator knows of MLflow's releases, and which images it takes when the spec names none."""

from dataclasses import dataclass

DEFAULT_VERSION = "3.17.2"
"""The version a new server gets. An existing one keeps `status.version` until its spec says otherwise."""

SCHEMA_HEADS = {
    "3.14.0": "b7e4c1a90f23",
    "3.16.1": "b7e2c1a4d9f3",
    "3.17.0": "dc11669786a5",
    "3.17.1": "dc11669786a5",
    "3.17.2": "dc11669786a5",
}
"""Alembic revision that each version's migrations end at; read with `ScriptDirectory.get_heads()` from the
packages themselves. A version that is missing costs one migration Job per image, nothing more."""


FAST_PATH_VERSIONS = ("3.17.0", "3.17.1", "3.17.2")
"""Versions whose tracking API is taken straight to its handlers: their server is known to be built that way."""


def version_for_revision(revision: str) -> str | None:
    """The version for a database that an earlier server left at `revision`: the tested one where that fits, else the
    newest known one that does; None where none is known to."""
    fitting = [version for version, head in SCHEMA_HEADS.items() if head == revision]
    if DEFAULT_VERSION in fitting:
        return DEFAULT_VERSION
    return max(fitting, key=_number, default=None)


def newer_version_for_revision(revision: str, version: str) -> str | None:
    """The version that is known to leave a database at `revision`, if it is a newer one than `version`."""
    fitting = version_for_revision(revision)
    if fitting is None or SCHEMA_HEADS.get(version) in {None, revision}:
        return None
    return fitting if _number(fitting) > _number(version) else None


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@dataclass(frozen=True)
class Images:
    """Where images come from. Mirrors are named here once for every server (`--image-mlflow` and so on).

    `mlflow` is a repository: the version makes its tag. The others are whole references.
    """

    mlflow: str = "ghcr.io/mlflow/mlflow"
    postgres: str = "docker.io/library/postgres:17-trixie"
    minio: str = "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"
    seaweedfs: str = "docker.io/chrislusf/seaweedfs:4.48"

    def server(self, version: str) -> str:
        """The `-full` image of an MLflow version: the plain one lacks the Postgres and S3 drivers."""
        return f"{self.mlflow}:v{version}-full"
