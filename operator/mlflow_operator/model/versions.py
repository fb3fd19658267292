"""Known MLflow releases, and the images that are used if the spec sets none."""

import re
from dataclasses import dataclass

DEFAULT_VERSION = "3.17.2"
"""The version of a new server. An existing server keeps `status.version` until its spec sets another one."""

SCHEMA_HEADS = {
    "3.14.0": "b7e4c1a90f23",
    "3.16.1": "b7e2c1a4d9f3",
    "3.17.0": "dc11669786a5",
    "3.17.1": "dc11669786a5",
    "3.17.2": "dc11669786a5",
}
"""Alembic head revision of each MLflow version, read with `ScriptDirectory.get_heads()` from the packages. A version
that is missing here costs one migration Job per image, nothing more."""

FAST_PATH_VERSIONS = ("3.17.0", "3.17.1", "3.17.2")
"""Versions for which the fast path (`Server.fast_path`) is verified: it depends on the internals of MLflow's server."""


_VERSION = re.compile(r"\d+\.\d+\.\d+")


def version_for_revision(revision: str) -> str | None:
    """Choose the version for a database that an earlier server left at `revision`.

    It is DEFAULT_VERSION if its revision matches, else the newest known version that matches, else None.
    """
    matching = [version for version, head in SCHEMA_HEADS.items() if head == revision]
    if DEFAULT_VERSION in matching:
        return DEFAULT_VERSION
    return max(matching, key=_version_tuple, default=None)


def newer_version_for_revision(revision: str, version: str) -> str | None:
    """Return the known version whose schema is at `revision`, if it is newer than `version`; else None."""
    matching = version_for_revision(revision)
    if matching is None or SCHEMA_HEADS.get(version) in {None, revision}:
        return None
    return matching if _version_tuple(matching) > _version_tuple(version) else None


def _version_tuple(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@dataclass(frozen=True)
class Images:
    """Default images. A mirror is configured here once for all servers (`--image-mlflow` and so on).

    `mlflow` is a repository; the version becomes its tag. The others are full image references.
    """

    mlflow: str = "ghcr.io/mlflow/mlflow"
    postgres: str = "docker.io/library/postgres:17-trixie"
    minio: str = "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"
    seaweedfs: str = "docker.io/chrislusf/seaweedfs:4.48"

    def server(self, version: str) -> str:
        """The `-full` image of an MLflow version. The plain image lacks the drivers for Postgres and S3."""
        return f"{self.mlflow}:v{version}-full"

    def version_of(self, image: str | None) -> str | None:
        """The MLflow version of an image if `server` returns that image for a version, else None."""
        prefix, suffix = f"{self.mlflow}:v", "-full"
        version = (image or "").removeprefix(prefix).removesuffix(suffix)
        return version if _VERSION.fullmatch(version) and image == self.server(version) else None
