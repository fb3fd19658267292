"""Known MLflow releases, and the images that are used if the spec sets none."""

import re
from dataclasses import dataclass

from mlflow_operator.model.release import Release, version_key
from mlflow_operator.model.version_catalogue import RELEASES

DEFAULT_VERSION = "3.18.0"
"""The version of a new server. An existing server keeps `status.version` until its spec sets another one."""

SCHEMA_HEADS = {release.version: release.schema_head for release in RELEASES}
"""Alembic head revision of each known version. A version that is missing here costs one migration Job per image,
nothing more."""

_FIRST_VERSION_WITH_ROLES, _LAST_VERSION_OF_AUTH_HEAD = (3, 14, 0), (3, 18, 0)

AUTH_SCHEMA_HEADS = {
    release.version: "f1a2b3c4d5e6"
    for release in RELEASES
    if _FIRST_VERSION_WITH_ROLES <= version_key(release.version) <= _LAST_VERSION_OF_AUTH_HEAD
}
"""Alembic head revision of the tables with users and roles. A version that is missing here costs one Job per image."""

FAST_PATH_VERSIONS = frozenset(release.version for release in RELEASES if release.fast_path)
"""Versions whose internals the fast path (`Server.fast_path`) supports. Other versions run `mlflow server`."""

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def version_for_revision(revision: str) -> str | None:
    """Choose the version for a database that an earlier server left at `revision`.

    It is DEFAULT_VERSION if its revision matches, else the newest known version that matches, else None.
    """
    matching = [version for version, head in SCHEMA_HEADS.items() if head == revision]
    if DEFAULT_VERSION in matching:
        return DEFAULT_VERSION
    return max(matching, key=version_key, default=None)


def newer_version_for_revision(revision: str, version: str) -> str | None:
    """Return the known version whose schema is at `revision`, if it is newer than `version`; else None."""
    matching = version_for_revision(revision)
    if matching is None or SCHEMA_HEADS.get(version) in {None, revision}:
        return None
    return matching if version_key(matching) > version_key(version) else None


def release_that_stops_writers(
    from_version: str | None, from_revision: str | None, to_version: str
) -> Release | None:
    """Return the newest release on the way to `to_version` whose migration requires that all writers are stopped.

    The revision of the database determines where the migration starts. `from_version`, the version of the running
    server, is used only if no known release has this revision. If neither is known, every such release counts.
    """
    reached = version_for_revision(from_revision) if from_revision else None
    start = version_key(reached or from_version or "")
    return max(
        (
            release
            for release in RELEASES
            if release.stops_writers and start < version_key(release.version) <= version_key(to_version)
        ),
        key=lambda release: version_key(release.version),
        default=None,
    )


@dataclass(frozen=True)
class Images:
    """Default images. A mirror is configured here once for all servers (`--image-mlflow` and so on).

    `mlflow` is a repository; the version becomes its tag. `mlflow_digests` pins the images of versions to a digest, as
    pairs. The others are full image references.
    """

    mlflow: str = "ghcr.io/mlflow/mlflow"
    postgres: str = "docker.io/library/postgres:17-trixie"
    minio: str = "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"
    seaweedfs: str = "docker.io/chrislusf/seaweedfs:4.48"
    mlflow_digests: tuple[tuple[str, str], ...] = ()

    def server(self, version: str) -> str:
        """The `-full` image of an MLflow version. The plain image lacks the drivers for Postgres and S3."""
        digest = dict(self.mlflow_digests).get(version)
        return f"{self.mlflow}:v{version}-full{f'@{digest}' if digest else ''}"

    def is_server(self, image: str, version: str) -> bool:
        """Whether `image` is the image of an MLflow version, also if it is pinned to another digest or to none."""
        return image.partition("@")[0] == self.server(version).partition("@")[0]

    def version_of(self, image: str | None) -> str | None:
        """The MLflow version of an image if it is the image of a version (`is_server`), else None."""
        prefix, suffix = f"{self.mlflow}:v", "-full"
        image = (image or "").partition("@")[0]
        version = image.removeprefix(prefix).removesuffix(suffix)
        return version if _VERSION.fullmatch(version) and self.is_server(image, version) else None
