"""Authentication of the clients of a server: `spec.auth`."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import NotPersistedDefault
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, at_most_one, cel_string, matches
from mlflow_operator.api.string_types import DataKey, ObjectName

DEFAULT_ADMINISTRATOR = "admin"
MIN_PASSWORD_CHARS = 12
"""MLflow accepts no shorter password."""

REFUSED_ENV = (
    "MLFLOW_APP_NAME",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_AUTH_ADMIN_USERNAME",
    "MLFLOW_AUTH_CONFIG_PATH",
)
"""Variables of MLflow's basic authentication. Servers without `spec.auth` may set them."""

_IS_BASIC = "has(self.auth) && !has(self.auth.none)"
_REFUSED_NAMES_CEL = ", ".join(map(cel_string, REFUSED_ENV))
_WITHOUT_ROLES = r"^([0-2]|3\.([0-9]|1[0-3]))\."
"""Pattern of the MLflow versions before 3.14.0, in which permissions are no roles."""


class DefaultPermission(StrEnum):
    """Permission of users on what no role grants them anything on."""

    NONE = "None"
    READ = "Read"
    USE = "Use"
    EDIT = "Edit"
    MANAGE = "Manage"


class AdminPasswordRef(Model):
    """Reference to a key of a Secret that contains the password of the administrator."""

    name: Annotated[ObjectName, Field(examples=["tracking-administrator"])]
    """Name of the Secret, in the namespace of the server."""
    key: DataKey = "password"
    """Key of the password, which has at least 12 characters. Defaults to password."""


class Administrator(Model):
    """Account of MLflow that the operator creates and that can always log in."""

    username: Annotated[
        str,
        Field(max_length=255, examples=["admin"]),
        matches(
            r"([^_:\x00-\x1f\x7f]|_[^_:\x00-\x1f\x7f])[^:\x00-\x1f\x7f]*|_",
            "is not a valid user name: use at least one character, no ':' and no control characters, and do not begin "
            "with '__'",
        ),
        NotPersistedDefault(),
    ] = DEFAULT_ADMINISTRATOR
    """Name of the account. It must not change. Defaults to admin."""
    password_secret_ref: AdminPasswordRef | None = None
    """Secret with a password that you manage. If not set, the operator generates the Secret `<name>-admin`. If the
    password in the database differs from that in the Secret, the operator resets it.
    """


class BasicAuthentication(Model):
    """User names and passwords, which MLflow stores in the database of the server."""


class NoAuthentication(Model):
    """The server accepts requests without credentials."""


class Authentication(Model):
    """Authentication of clients. At most one of `basic` and `none` must be set. Defaults to `basic`."""

    basic: BasicAuthentication | None = None
    """User names and passwords, with MLflow's users and roles. Requires MLflow 3.14.0 or later."""
    none: NoAuthentication | None = None
    """No authentication, as an explicit choice: for example, because a proxy authenticates clients."""
    default_permission: Annotated[DefaultPermission | None, Field(examples=["Read"])] = None
    """Permission of every user on experiments, models and other objects on which no role grants a higher one: None,
    Read, Use, Edit or Manage. Defaults to None.
    """
    admin: Administrator | None = None
    """Administrator of the server. The operator creates this account and keeps it usable."""

    rules = (
        at_most_one("spec.auth", "basic", "none"),
        Rule(
            "!has(self.none) || !has(self.admin)",
            "spec.auth.admin has no effect with spec.auth.none: remove one of them",
            field=".admin",
            holds=lambda auth: auth.none is None or auth.admin is None,
        ),
        Rule(
            "!has(self.none) || !has(self.defaultPermission)",
            "spec.auth.defaultPermission has no effect with spec.auth.none: remove one of them",
            field=".defaultPermission",
            holds=lambda auth: auth.none is None or auth.default_permission is None,
        ),
    )

    @property
    def is_basic(self) -> bool:
        """Whether clients need a user name and a password."""
        return self.none is None


def is_without_roles(version: str) -> bool:
    """Whether the MLflow version is too old for `spec.auth`."""
    return re.match(_WITHOUT_ROLES, version) is not None


def _username_cel(root: str) -> str:
    path = f"{root}.auth.admin"
    is_set = f"has({path}) && has({path}.username)"
    return f"({is_set} ? {path}.username : {cel_string(DEFAULT_ADMINISTRATOR)})"


AUTHENTICATION_RULES = (
    Rule(
        f"!({_IS_BASIC}) || self.?assistant.orValue('Disabled') == 'Disabled'",
        "spec.assistant Enabled is not possible with spec.auth, because every user could run programs in the pod with "
        "MLflow's assistant: set spec.assistant to Disabled",
        field=".assistant",
        holds=lambda spec: spec.auth is None or not spec.auth.is_basic or spec.assistant.value == "Disabled",
    ),
    Rule(
        f"!({_IS_BASIC}) || !has(self.version) || !self.version.matches({cel_string(_WITHOUT_ROLES)})",
        "spec.auth requires MLflow 3.14.0 or later, because earlier versions have no roles: set spec.version to a "
        "later one, or remove spec.auth",
        field=".version",
        holds=lambda spec: (
            spec.auth is None or not spec.auth.is_basic or not is_without_roles(spec.version or "")
        ),
    ),
    Rule(
        f"!({_IS_BASIC}) || !has(self.env) || !self.env.exists(variable, variable.name in [{_REFUSED_NAMES_CEL}])",
        f"spec.env must not set {', '.join(REFUSED_ENV[:-1])} or {REFUSED_ENV[-1]} with spec.auth: the operator "
        "configures MLflow's authentication. Remove the variable and use spec.auth",
        field=".env",
        holds=lambda spec: (
            spec.auth is None
            or not spec.auth.is_basic
            or not any(variable.name in REFUSED_ENV for variable in spec.env)
        ),
    ),
    Rule(
        f"!has(self.auth) || !has(oldSelf.auth) || {_username_cel('self')} == {_username_cel('oldSelf')}",
        "spec.auth.admin.username must not change, because the previous account would stay an administrator: restore "
        "the previous value (the default is admin)",
        field=".auth",
    ),
)
"""Rules of the spec of a server."""
