"""Major versions of Postgres. A data directory can only be opened by the major version that wrote it."""

import re

from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_REPOSITORY_NAMES = ("postgres", "postgresql")
_MAJOR = re.compile(r"v?(\d{1,2})(?:[.-].*)?")


def major_version(image: str) -> int | None:
    """Major version in the image's tag; None if the repository is not called postgres or the tag is no version."""
    repository, _, tag = image.partition("@")[0].rpartition(":")
    if repository.rpartition("/")[2] not in _REPOSITORY_NAMES:
        return None
    match = _MAJOR.fullmatch(tag)
    return int(match.group(1)) if match else None


def major_version_error(running: str, desired: str) -> ConfigurationError | None:
    """Error if `desired` has another major version than `running`; None if the versions match or one is unknown."""
    current_major, desired_major = major_version(running), major_version(desired)
    if current_major is None or desired_major is None or current_major == desired_major:
        return None
    return ConfigurationError(
        Reason.DATABASE_VERSION_UNSUPPORTED,
        f"The image {desired} is Postgres {desired_major}, but Postgres {current_major} wrote the volume, and no other "
        f"major version can open it. Nothing was changed: the database keeps running {running}. Set "
        "spec.database.embedded.image back to that image. To change the major version, restore a backup into an empty "
        "database (spec.restoreFrom).",
    )
