"""What libpq says when it gets no connection, in our own words and with the way out."""

from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError

_NO_SLOT = "has no connection left. Raise its max_connections, or the limit of the database or of its user"

_FAULTS: tuple[tuple[str, type[ReconcileError], Reason, str], ...] = (
    (
        "invalid connection option",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "can't be asked, for its URI holds an option that Postgres does not know. "
            "Correct it in the Secret that {field} names"
        ),
    ),
    (
        "invalid sslmode value",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "can't be asked, for its URI holds an sslmode that there is not. "
            "Correct it in the Secret that {field} names"
        ),
    ),
    # what PgBouncer says for itself, in sentences that hold words of Postgres' own
    (
        "unsupported startup parameter",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "is a PgBouncer that does not take an option of the URI. Take it out of the Secret that {field} names and "
            "set it for the role (ALTER ROLE ... SET), or name it in the pooler's ignore_startup_parameters"
        ),
    ),
    (
        "SASL authentication failed",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        (
            "is a PgBouncer that knows no such user, or not with this password. Put the right ones into the Secret "
            "that {field} names, or let the pooler know them, in its auth_file or by its auth_query"
        ),
    ),
    (
        "query_wait_timeout",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        (
            "is a PgBouncer that got no connection to its Postgres. Check that Postgres runs where the pooler's "
            "[databases] say, and raise default_pool_size if all connections are taken"
        ),
    ),
    (
        "cached error: connect failed",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "is a PgBouncer whose Postgres can't be reached. Check that it runs where the pooler's [databases] say",
    ),
    (
        "max_client_conn",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "is a PgBouncer with no connection left. Raise its max_client_conn",
    ),
    # before "does not exist" and "certificate", which are in these sentences, too
    (
        "root certificate file",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "is to be verified by a file that the operator does not have. Take sslrootcert out of the URI, put the "
            "authority into a Secret, and name it in {root}.tls.caSecretRef"
        ),
    ),
    (
        "does not match host name",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "shows a certificate that is made out for another host. Name the database by the host in its "
            "certificate, or use mode VerifyCA in {root}.tls"
        ),
    ),
    (
        "client certificate",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "asks for a client certificate, and the operator has none. Let this user in by a password",
    ),
    (
        "password authentication failed",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "refuses the user name or the password. Put the right ones into the Secret that {field} names",
    ),
    (
        "no password supplied",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "asks for a password and none is given. Put one into the Secret that {field} names",
    ),
    (
        "no pg_hba.conf entry",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        (
            "has no pg_hba.conf entry for this client, user, database and encryption. "
            "Add one there, or change {root}.tls.mode"
        ),
    ),
    (
        "does not exist",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "has no such database or role. Create it (UTF8) with the user as its owner, or correct {root}",
    ),
    (
        "permission denied for database",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "forbids this user the database. Grant it CONNECT and make it the owner",
    ),
    (
        "permission denied",
        ConfigurationError,
        Reason.DATABASE_PRIVILEGE_MISSING,
        "forbids this user MLflow's tables. Make it their owner, or GRANT it all on them",
    ),
    (
        "certificate",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "shows a certificate that is not trusted. Put its authority into the Secret that "
            "{root}.tls.caSecretRef names"
        ),
    ),
    (
        "does not support SSL",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        "speaks no TLS, which {root}.tls.mode asks for. Turn TLS on there, or use mode Prefer",
    ),
    (
        "resolve host",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "has a name that does not resolve in this cluster. Check {root}",
    ),
    (
        "No space left on device",
        TransientError,
        Reason.DATABASE_FULL,
        "has no room left on its disk. Make its volume larger, or free some of it; it is then tried again by itself",
    ),
    (
        "read-only transaction",
        TransientError,
        Reason.DATABASE_READ_ONLY,
        (
            "lets nothing be written: it is a standby, or default_transaction_read_only is on. "
            "Name the primary in {root}"
        ),
    ),
    ("too many", TransientError, Reason.DATABASE_UNREACHABLE, _NO_SLOT),
    ("remaining connection slots", TransientError, Reason.DATABASE_UNREACHABLE, _NO_SLOT),
    (
        "recovery mode",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "is starting up. It is asked again shortly",
    ),
    ("starting up", TransientError, Reason.DATABASE_UNREACHABLE, "is starting up. It is asked again shortly"),
    (
        "Connection refused",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "refuses connections. Check that it runs",
    ),
)


def from_psycopg(error: Exception, place: str, field: str) -> ReconcileError:
    """The sentence for what libpq says. `place` is where the database is, `field` where the spec says so: the member of
    `spec.database`, or the reference below it that the user comes from.

    Only words known beforehand are passed on: libpq's own text could quote what it was given.
    """
    text, root = str(error), field.removesuffix(".adminSecretRef")
    for words, kind, reason, sentence in _FAULTS:
        if words.lower() in text.lower():
            return kind(reason, f"The database at {place} {sentence.format(field=field, root=root)}.")
    return TransientError(
        Reason.DATABASE_UNREACHABLE,
        f"The database at {place} can't be reached. Check that it runs, that the network lets the operator's "
        f"and the server's pods through, and that {root} is right.",
    )
