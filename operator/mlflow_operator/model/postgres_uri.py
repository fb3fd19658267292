"""Connection URIs for SQLAlchemy and libpq, with percent-encoding of special characters."""

import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

DIALECT = "postgresql+psycopg2"
"""SQLAlchemy's dialect and driver for MLflow; libpq only accepts `postgresql`.

The driver is explicit because otherwise it depends on the image. With psycopg 3, MLflow 2.22 and 3.14 fail: they
compare numeric columns with text, which psycopg 3's typed parameters do not allow (observed for a run and a model
version).
"""

_DIALECTS = ("postgresql", "postgres")

_RESERVED_OPTIONS = ("host", "hostaddr", "port", "user", "password", "dbname", "service", "conninfo")
"""libpq options that belong before the `?` of a URI. If set twice, MLflow and the operator could use different ones."""

_ALLOWED_OPTIONS = frozenset(
    {
        "application_name",
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "fallback_application_name",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "options",
        "require_auth",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcertmode",
        "sslcompression",
        "sslmode",
        "sslnegotiation",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
    }
)
"""libpq options that a user's URI may contain. The operator connects with them, too: others would make it read or write
files of its own, such as `passfile`, `sslkey` and `sslkeylogfile`, or use its own identity, such as `krbsrvname`."""

_SYSTEM_CERTIFICATES = "system"
"""The only value of `sslrootcert` that is not a file. It is possible with a CA in the spec, which replaces it."""

_KEEPALIVE_OPTIONS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""Options for connections that stay open for days. If the other host or a firewall drops the connection silently, the
kernel's defaults wait 15 minutes for an acknowledgement of sent data, and two hours while receiving. All values are in
seconds, except `tcp_user_timeout` in milliseconds."""

_SSLMODES = {
    DatabaseTLSMode.DISABLE: "disable",
    DatabaseTLSMode.PREFER: "prefer",
    DatabaseTLSMode.REQUIRE: "require",
    DatabaseTLSMode.VERIFY_CA: "verify-ca",
    DatabaseTLSMode.VERIFY_FULL: "verify-full",
}

_SSLMODES_BY_STRENGTH = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True)
class Connection:
    """Connection parameters of one Postgres database. `options` are libpq options such as `sslmode`."""

    host: str
    port: int
    database: str
    username: str
    password: str
    options: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """Omit the password, because the text may be logged."""
        return f"Connection({self.username}@{self.address}/{self.database})"

    @property
    def address(self) -> str:
        """Host and port, for URIs and messages. An IPv6 address is in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def with_tls(self, mode: DatabaseTLSMode, ca_path: str | None) -> "Connection":
        """Add TLS settings. `ca_path` is a file in the container of the process that connects.

        The stronger of `mode` and an `sslmode` among the options applies: a spec that requires verification must not be
        weakened by a URI from a provider's Secret. The default, `prefer`, verifies nothing and never replaces an
        option.
        """
        options, desired = dict(self.options), _SSLMODES[mode]
        sslmode = options.setdefault("sslmode", desired)
        weaker = sslmode not in _SSLMODES_BY_STRENGTH or _SSLMODES_BY_STRENGTH.index(
            sslmode
        ) < _SSLMODES_BY_STRENGTH.index(desired)
        if mode is not DatabaseTLSMode.PREFER and weaker:
            options["sslmode"] = desired
        if ca_path:
            options["sslrootcert"] = ca_path
        return Connection(
            self.host, self.port, self.database, self.username, self.password, tuple(sorted(options.items()))
        )

    def with_credentials(self, username: str, password: str) -> "Connection":
        """The same database with another user."""
        return replace(self, username=username, password=password)

    def with_keepalives(self) -> "Connection":
        """Detect within a minute that the other end is gone. Options that are already set take precedence."""
        return replace(self, options=tuple(sorted((_KEEPALIVE_OPTIONS | dict(self.options)).items())))

    def with_hostaddr(self, address: str) -> "Connection":
        """Connect to `address` without a DNS lookup; the certificate is still verified against `host`."""
        return replace(self, options=(*self.options, ("hostaddr", address)))

    def sqlalchemy_uri(self) -> str:
        """URI for MLflow. It names the driver, because the default for `postgresql://` depends on SQLAlchemy's version.

        The driver is psycopg2, which MLflow is tested with. psycopg 3 sends the type of every value to Postgres, and
        MLflow 3.17 compares the number of a model version with text: archiving the existing versions of a stage would
        fail.
        """
        return self._uri(DIALECT)

    def _uri(self, scheme: str) -> str:
        user = quote(self.username, safe="")
        password = f":{quote(self.password, safe='')}" if self.password else ""
        # libpq does not decode "+": a space must be %20, or options=-c search_path=... breaks the migration.
        query = f"?{urlencode(self.options, quote_via=quote)}" if self.options else ""
        return f"{scheme}://{user}{password}@{self.address}/{quote(self.database, safe='')}{query}"


def parse(uri: str, source: str) -> Connection:
    """Parse a connection URI from a user's Secret. `source` names the Secret in error messages.

    Accepts `postgresql://`, `postgres://`, and both with a driver (`postgresql+psycopg2://`).
    Raises ConfigurationError; its message contains no part of the URI except the scheme.
    """
    scheme, separator, _ = uri.strip().partition("://")
    dialect = scheme.partition("+")[0].lower()
    if not separator or dialect not in _DIALECTS:
        start = (
            f'starts with "{scheme}://"'
            if separator and scheme.replace("+", "").isalnum()
            else "has no valid URI scheme"
        )
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{source} must contain a Postgres URI such as postgresql://user:password@host:5432/mlflow, but its value "
            f"{start}. Only Postgres is supported.",
        )
    try:
        parts = urlsplit(uri.strip())
        host, port = parts.hostname, parts.port or 5432
    except ValueError:
        # Not chained: urllib's message quotes the URI.
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{source} contains a URI with an invalid host or port. Use one host and one port, and percent-encode "
            "special characters in the user name and the password, for example p%40ss for p@ss.",
        ) from None
    options = tuple(parse_qsl(parts.query))
    misplaced = sorted({name for name, _ in options} & set(_RESERVED_OPTIONS))
    if misplaced:
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{source} contains a URI with {' and '.join(misplaced)} after the question mark. Write it as "
            "postgresql://user:password@host:5432/database, with only other options after the question mark.",
        )
    database = unquote(parts.path.removeprefix("/"))
    missing = [
        name
        for name, value in (("a host", host), ("a user name", parts.username), ("a database", database))
        if not value
    ]
    if missing or host is None:
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{source} contains a URI without {' and '.join(missing)}. Write it as "
            "postgresql://user:password@host:5432/database, and percent-encode special characters.",
        )
    return Connection(
        host,
        port,
        database,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        options,
    )


def check_options(connection: Connection, source: str) -> None:
    """Raise ConfigurationError if a user's URI has an option that is not allowed. `source` names the Secret.

    The message contains the names of the options, which are not secret, but no unusual text and no values.
    """
    rejected = sorted({name for name, _ in connection.options} - _ALLOWED_OPTIONS - {"sslrootcert"})
    if rejected:
        names = [name if re.fullmatch("[a-z_]{1,30}", name) else "an unknown option" for name in rejected[:5]]
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{source} contains a URI with {' and '.join(dict.fromkeys(names))} after the question mark, which the "
            "operator does not support: it connects with the same URI, and has neither the files nor the identity of "
            f"the server's pods. Remove it. Supported options are {', '.join(sorted(_ALLOWED_OPTIONS))}.",
        )
    if dict(connection.options).get("sslrootcert", _SYSTEM_CERTIFICATES) != _SYSTEM_CERTIFICATES:
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{source} contains a URI with the file of a CA certificate in sslrootcert, which the operator does not "
            "have. Remove sslrootcert, and reference a Secret with the certificate in "
            "spec.database.external.tls.caSecretRef.",
        )
