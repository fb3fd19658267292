"""The schema revision that the image of a server needs, as far as it is known without running the image."""

from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.running_server import running_image
from mlflow_operator.model.versions import SCHEMA_HEADS


def expected_revision(context: ReconcileContext) -> str | None:
    """The revision at which no migration is needed; None if it is not known in advance."""
    return known_head(context) or _served_revision(context)


def known_head(context: ReconcileContext) -> str | None:
    """Head revision of the image's migrations; None for a custom image, which may not contain its stated version."""
    return SCHEMA_HEADS.get(context.server.version) if context.server.is_default_image else None


def _served_revision(context: ReconcileContext) -> str | None:
    """For an image with an unknown head: the revision at which it already served."""
    return (
        context.observed.status.get("schemaRevision")
        if running_image(context) == context.server.image
        else None
    )
