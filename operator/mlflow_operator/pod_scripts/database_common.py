"""Connections to the database of a server. It is put in front of the code of the programs that open their own."""

MIGRATION_LOCK = 0x6D6C666C6F77  # "mlflow"
"""Advisory lock for changes of the schema and of encrypted secrets: migrations, restores and the rotation of keys."""


def libpq_uri(uri):
    """Return a URI that libpq supports: SQLAlchemy names a driver in the scheme."""
    return "postgresql://" + uri.partition("://")[2]
