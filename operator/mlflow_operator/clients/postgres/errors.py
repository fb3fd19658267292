"""Condition messages for libpq's and PgBouncer's errors: the cause, and what the user must do."""

from mlflow_operator.clients import metadata_addresses
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError

_NO_FREE_CONNECTION = (
    "has no free connections. Raise its max_connections, or the limit of the database or of the user"
)

_LIBPQ_ERRORS: tuple[tuple[str, type[ReconcileError], Reason, str], ...] = (
    (
        metadata_addresses.REFUSED,
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "has an address at which clouds serve credentials of their nodes, so the operator does not connect to it. "
            "Use another host in {root}"
        ),
    ),
    # The text also names the method that the server requests, and entries below have fragments of such names.
    (
        "authentication method requirement",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        (
            "does not authenticate the administrator with scram-sha-256, so the operator does not send the password. "
            "Use scram-sha-256 in pg_hba.conf, set password_encryption to scram-sha-256, and set the password again"
        ),
    ),
    (
        "invalid connection option",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "cannot be reached because its URI contains an option that Postgres does not know. "
            "Correct the URI in the Secret referenced by {field}"
        ),
    ),
    (
        "invalid sslmode value",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "cannot be reached because its URI contains an invalid sslmode. "
            "Correct the URI in the Secret referenced by {field}"
        ),
    ),
    # PgBouncer's own errors come first: they contain fragments of Postgres' errors below.
    (
        "unsupported startup parameter",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "is a PgBouncer that does not accept an option of the URI. Remove the option from the Secret referenced by "
            "{field} and set it for the role (ALTER ROLE ... SET), or add it to the pooler's ignore_startup_parameters"
        ),
    ),
    (
        "SASL authentication failed",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        (
            "is a PgBouncer that does not know the user, or rejects its password. Correct them in the Secret "
            "referenced by {field}, or add the user to the pooler's auth_file or auth_query"
        ),
    ),
    (
        "query_wait_timeout",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        (
            "is a PgBouncer that gets no connection to its Postgres. Check that Postgres runs at the host in the "
            "pooler's [databases] section, and raise default_pool_size if all connections are in use"
        ),
    ),
    (
        "cached error: connect failed",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        (
            "is a PgBouncer that cannot reach its Postgres. Check that Postgres runs at the host in the pooler's "
            "[databases] section"
        ),
    ),
    (
        "max_client_conn",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "is a PgBouncer with no free client connections. Raise its max_client_conn",
    ),
    # These errors also contain "does not exist" and "certificate" and must therefore precede those entries.
    (
        "root certificate file",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "is configured with a root certificate file that the operator does not have. Remove sslrootcert from the "
            "URI, store the CA certificate in a Secret, and reference the Secret in {root}.tls.caSecretRef"
        ),
    ),
    (
        "does not match host name",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "presents a certificate for another host. Use the host name in the certificate, or mode VerifyCA in "
            "{root}.tls"
        ),
    ),
    (
        "client certificate",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        (
            "requires a client certificate, which the operator does not have. Let the user authenticate with a "
            "password"
        ),
    ),
    (
        "password authentication failed",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "rejects the user name or the password. Correct them in the Secret referenced by {field}",
    ),
    (
        "no password supplied",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "requires a password, but none is configured. Add it to the Secret referenced by {field}",
    ),
    (
        "no pg_hba.conf entry",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        (
            "has no pg_hba.conf entry for this client, user, database and encryption. "
            "Add one, or change {root}.tls.mode"
        ),
    ),
    (
        "does not exist",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "has no such database or role. Create it (encoding UTF8) with the user as its owner, or correct {root}",
    ),
    (
        "permission denied for database",
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "does not allow this user to connect to the database. GRANT CONNECT to the user, and make it the owner",
    ),
    (
        "permission denied",
        ConfigurationError,
        Reason.DATABASE_PRIVILEGE_MISSING,
        "does not allow this user to use MLflow's tables. Make the user their owner, or GRANT it ALL on them",
    ),
    (
        "certificate",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        (
            "presents a certificate that is not trusted. Store the certificate of its CA in the Secret referenced by "
            "{root}.tls.caSecretRef"
        ),
    ),
    (
        "does not support SSL",
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        "does not support TLS, which {root}.tls.mode requires. Enable TLS in the database, or use mode Prefer",
    ),
    (
        "resolve host",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "has a host name that does not resolve in this cluster. Check {root}",
    ),
    (
        "No space left on device",
        TransientError,
        Reason.DATABASE_FULL,
        "has no space left on its disk. Enlarge its volume or free space; the operator then retries automatically",
    ),
    (
        "read-only transaction",
        TransientError,
        Reason.DATABASE_READ_ONLY,
        (
            "is read-only: it is a standby, or default_transaction_read_only is on. "
            "Configure the primary in {root}"
        ),
    ),
    ("too many", TransientError, Reason.DATABASE_UNREACHABLE, _NO_FREE_CONNECTION),
    ("remaining connection slots", TransientError, Reason.DATABASE_UNREACHABLE, _NO_FREE_CONNECTION),
    (
        "recovery mode",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "is starting up. The operator retries shortly",
    ),
    (
        "starting up",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "is starting up. The operator retries shortly",
    ),
    (
        "Connection refused",
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        "refuses connections. Check that it runs, and that the host and the port in {root} are correct",
    ),
)
"""Fragment of the error text, error class, condition reason, and predicate of the message. The first match applies."""


def from_psycopg(error: Exception, address: str, field: str) -> ReconcileError:
    """Return the error for a psycopg exception.

    `address` is the host and port of the database. `field` is the spec field that configures it: the member of
    `spec.database`, or the reference below it that provides the user.
    Messages contain only fixed text: libpq's own text could quote values that it was given, such as a password.
    """
    text, root = str(error), field.removesuffix(".adminSecretRef")
    for fragment, error_type, reason, predicate in _LIBPQ_ERRORS:
        if fragment.lower() in text.lower():
            return error_type(
                reason, f"The database at {address} {predicate.format(field=field, root=root)}."
            )
    return TransientError(
        Reason.DATABASE_UNREACHABLE,
        f"The database at {address} cannot be reached. Check that it runs, that the network allows connections from "
        f"the operator's and the server's pods, and that {root} is correct.",
    )


def read_only(address: str, field: str) -> TransientError:
    """Return the error for a Postgres that rejects writes. Arguments as above."""
    return TransientError(
        Reason.DATABASE_READ_ONLY,
        f"The database at {address} is read-only: it is a standby, or default_transaction_read_only is on. Configure "
        f"the primary in {field}.",
    )


def too_much_data(address: str, field: str) -> TransientError:
    """Return the error for a server that sends more data than any answer to the operator has. Arguments as above."""
    return TransientError(
        Reason.DATABASE_UNREACHABLE,
        f"The service at {address} sends more data than the operator requests. Check that "
        f"{field.removesuffix('.adminSecretRef')} is the address of a PostgreSQL.",
    )


def no_answer(address: str) -> TransientError:
    """Return the error for a server that does not answer within the timeout."""
    return TransientError(
        Reason.DATABASE_UNREACHABLE,
        f"The database at {address} does not answer in time. Check that it runs, that it is not overloaded, and that "
        "the network allows connections from the operator's and the server's pods.",
    )


def in_use(address: str) -> TransientError:
    """Return the error for a server that answers, but only other sessions: many servers were changed at once."""
    return TransientError(
        Reason.PROGRESSING,
        f"The operator is checking the databases of other servers at {address}, and will check this one afterwards.",
    )


def too_many_iterations(address: str) -> TransientError:
    """Return the error for a server whose login the operator has not computed within the timeout."""
    return TransientError(
        Reason.DATABASE_UNREACHABLE,
        f"The database at {address} requests too many SCRAM iterations: the operator did not complete the login in "
        "time. Reduce scram_iterations in its configuration, and set the password of the user again.",
    )


def login_blocked(address: str) -> TransientError:
    """Return the error for a login that waits for the one of `too_many_iterations` in the same namespace."""
    return TransientError(
        Reason.DATABASE_UNREACHABLE,
        f"The operator did not connect to the database at {address}, because the database of another MLflowServer in "
        "this namespace requests too many SCRAM iterations. Find that server by its condition, and correct its "
        "database first.",
    )
