"""Changes of a stored resource that would lose sight of data, refused until somebody says it is meant.

Absent members count as what they stand for: no `database` is an embedded one, no `storage` has its default
size. What only a Secret tells (the host inside a URI) can't be compared here; the operator does that and
reports `StorageChangeRefused`.
"""

from mlflow_operator.api.rules import Rule
from mlflow_operator.api.storage import ARTIFACTS_SIZE, DATABASE_SIZE

_ALLOWED = "self.storageChangePolicy == 'Allow'"
_WAY_OUT = (
    "the server would start on other data, the old is not moved. Put the old value back, or, if it is meant, "
    "set spec.storageChangePolicy to Allow"
)


def _both(path: str) -> str:
    return f"self.{path}.hasValue() && oldSelf.{path}.hasValue()"


def _same(path: str) -> str:
    return f"self.{path} == oldSelf.{path}"


def _kept(cel: str, subject: str, field: str) -> Rule:
    return Rule(f"{_ALLOWED} || {cel}", f"{subject} changed: {_WAY_OUT}", field=field)


def _member(union: str, member: str) -> Rule:
    path = f"?{union}.?{member}.hasValue()"
    return _kept(f"self.{path} == oldSelf.{path}", f"The member of spec.{union}", f".{union}")


def _never_smaller(union: str, default: str) -> Rule:
    here = f"?{union}.?embedded.?storage.?size.orValue('{default}')"
    other = {"database": "external", "artifacts": "s3"}[union]
    elsewhere = f"?{union}.?{other}.hasValue()"
    return Rule(
        f"self.{elsewhere} || oldSelf.{elsewhere} || "
        f"!isQuantity(self.{here}) || !isQuantity(oldSelf.{here}) || "
        f"quantity(self.{here}).compareTo(quantity(oldSelf.{here})) >= 0",
        f"spec.{union}.embedded.storage.size got smaller, and a volume can't shrink: "
        "put the old size back, or a larger one",
        message_expression=f"'spec.{union}.embedded.storage.size got smaller, and a volume can\\'t shrink: "
        f"write ' + oldSelf.{here} + ' or more'",
        field=f".{union}",
    )


def _same_class(union: str) -> Rule:
    path = f"?{union}.?embedded.?storage.?storageClassName"
    other = {"database": "external", "artifacts": "s3"}[union]
    elsewhere = f"?{union}.?{other}.hasValue()"
    return Rule(
        f"self.{elsewhere} || oldSelf.{elsewhere} || {_same(path)}",
        f"spec.{union}.embedded.storage.storageClassName changed, and a volume stays in its class: put "
        "the old value back (or leave it out as before), and make a new server to use another class",
        field=f".{union}",
    )


def _host(which: str) -> str:
    endpoint = f"{which}.?artifacts.?s3.?endpoint"
    return f"(isURL({endpoint}.orValue('')) ? url({endpoint}.value()).getHost() : '')"


EXTERNAL = "?database.?external"
S3 = "?artifacts.?s3"

CHANGE_RULES = (
    _member("database", "external"),
    _member("artifacts", "s3"),
    _kept(
        f"!({_both(f'{EXTERNAL}.?host')}) || ({_same(f'{EXTERNAL}.?host')} && "
        f"self.{EXTERNAL}.?port.orValue(5432) == oldSelf.{EXTERNAL}.?port.orValue(5432))",
        "spec.database.external.host or port",
        ".database",
    ),
    _kept(
        f"!({_both(f'{EXTERNAL}.?host')}) || self.{EXTERNAL}.?databaseName.orValue('mlflow') == "
        f"oldSelf.{EXTERNAL}.?databaseName.orValue('mlflow')",
        "spec.database.external.databaseName",
        ".database",
    ),
    # http becoming https is no other store: hosts are compared, ports included.
    _kept(
        f"!({_both(S3)}) || {_host('self')} == {_host('oldSelf')}",
        "The host of spec.artifacts.s3.endpoint",
        ".artifacts",
    ),
    _kept(f"!({_both(S3)}) || {_same(f'{S3}.?bucket')}", "spec.artifacts.s3.bucket", ".artifacts"),
    _kept(f"!({_both(S3)}) || {_same(f'{S3}.?prefix')}", "spec.artifacts.s3.prefix", ".artifacts"),
    _kept(
        "self.?artifacts.?access.orValue('Proxied') == oldSelf.?artifacts.?access.orValue('Proxied')",
        "spec.artifacts.access",
        ".artifacts",
    ),
    _never_smaller("database", DATABASE_SIZE),
    _never_smaller("artifacts", ARTIFACTS_SIZE),
    _same_class("database"),
    _same_class("artifacts"),
)
