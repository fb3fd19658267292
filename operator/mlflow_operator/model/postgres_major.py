"""Major versions of Postgres: a volume that one of them wrote is opened by no other."""

import re

from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_NAMES = ("postgres", "postgresql")
_MAJOR = re.compile(r"v?(\d{1,2})(?:[.-].*)?")


def major(image: str) -> int | None:
    """As the image's tag tells it; None where the name is not Postgres' own, or the tag is no version."""
    repository, _, tag = image.partition("@")[0].rpartition(":")
    if repository.rpartition("/")[2] not in _NAMES:
        return None
    found = _MAJOR.fullmatch(tag)
    return int(found.group(1)) if found else None


def refusal(running: str, wanted: str) -> ConfigurationError | None:
    """Why the image `wanted` must not take the place of `running`; None where nothing is known against it."""
    before, after = major(running), major(wanted)
    if before is None or after is None or before == after:
        return None
    return ConfigurationError(
        Reason.DATABASE_VERSION_UNSUPPORTED,
        f"The image {wanted} is Postgres {after}, and the volume was written by Postgres {before}, which no other "
        f"major version opens. Nothing was touched: the database goes on with {running}. Put that image back into "
        "spec.database.embedded.image; the way to another major version is a backup that is restored into an empty "
        "database (spec.restoreFrom).",
    )
