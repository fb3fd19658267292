"""docs/reference/mlflow-versions.md: the version catalogue."""

from mlflow_operator.model.version_catalogue import RELEASES
from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.reference.markdown import NOTICE, code, table

_INTRODUCTION = f"""\
# MLflow versions

{NOTICE}

The operator knows these releases of MLflow. New servers run {DEFAULT_VERSION} unless `spec.version` or `spec.image` is
set. A release that is not in the list works, too: the operator then runs one more Job to learn its schema revision, and
starts MLflow's own command.

An upgrade between releases with the same schema revision needs no schema migration. With a fast path, the operator
starts MLflow in a way that needs half of the memory, if `spec.artifacts.access` is `Proxied`, `spec.jobExecution` is
`Disabled`, and the image is the default one.
"""


def page() -> str:
    """Return the page, with the newest release first."""
    rows = [
        (
            release.version,
            code(release.schema_head),
            "yes" if release.fast_path else "",
            ("`upgrade.strategy: RollingUpdate` is refused. " if release.stops_writers else "")
            + release.notes,
        )
        for release in reversed(RELEASES)
    ]
    return "\n".join(
        [_INTRODUCTION, table(("Version", "Schema revision", "Fast path", "Upgrade notes"), rows)]
    )
