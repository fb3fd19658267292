"""Transition rules: the API server rejects updates that would disconnect the server from its data, unless
`storageChangePolicy` is Allow.

A field that is not set counts as its default: without `database` the database is embedded, and `storage` has its
default size. Values in Secrets, such as the host in a URI, cannot be compared here; the operator compares them and
reports `StorageChangeRefused`.

The API server estimates the cost of a rule from the limits in the schema. It cannot apply these limits to the results
of optionals (`.?`) and conditionals. Rules therefore check fields with `has()` and compare the fields directly.
"""

from mlflow_operator.api.rules import Rule
from mlflow_operator.api.storage import ARTIFACTS_SIZE, DATABASE_SIZE

EXTERNAL_DATABASE = "database.external"
PROVISIONED_DATABASE = "database.provision"
CLOUD_NATIVE_PG_DATABASE = "database.cloudNativePG"
NON_EMBEDDED_DATABASES = (EXTERNAL_DATABASE, PROVISIONED_DATABASE, CLOUD_NATIVE_PG_DATABASE)
"""Fields of `database` other than `embedded`."""

PLATFORM_DATABASE = "database.platform"
"""Not in NON_EMBEDDED_DATABASES: a server without this field may use a platform, too, which only its status shows. The
operator compares the choice with `status.platform`. The same applies to PLATFORM_ARTIFACTS.

A platform can take over a provisioned database or an S3 bucket. Only the operator knows where the platform's are: it
refuses other ones.
"""

HOST = f"{EXTERNAL_DATABASE}.host"
S3 = "artifacts.s3"
PLATFORM_ARTIFACTS = "artifacts.platform"
ENGINE = "artifacts.embedded.engine"
EXTERNAL_ARTIFACTS = "artifacts.external"

_ALLOWED = "self.storageChangePolicy == 'Allow'"
_CONSEQUENCE_AND_FIX = (
    "the server would use other data, because the operator does not move the existing data. Restore the previous "
    "value, or set spec.storageChangePolicy to Allow to confirm the change"
)


def _has(root: str, path: str) -> str:
    """Return the CEL expression that `path` and its parents are set in `root` (`self` or `oldSelf`)."""
    parts = path.split(".")
    return " && ".join(f"has({'.'.join([root, *parts[: depth + 1]])})" for depth in range(len(parts)))


def _set_in_both(path: str) -> str:
    return f"{_has('self', path)} && {_has('oldSelf', path)}"


def _same(path: str) -> str:
    """Return the CEL expression that a scalar is unchanged, or not set before and after the update."""
    is_set, was_set = _has("self", path), _has("oldSelf", path)
    return f"({is_set}) == ({was_set}) && (!({is_set} && {was_set}) || self.{path} == oldSelf.{path})"


def _same_or_default(path: str, default: str) -> str:
    """Return the CEL expression that a scalar is unchanged, where a scalar that is not set equals `default`."""
    is_set, was_set = _has("self", path), _has("oldSelf", path)
    return (
        f"({is_set} ? ({was_set} ? self.{path} == oldSelf.{path} : self.{path} == {default}) : "
        f"(!({was_set}) || oldSelf.{path} == {default}))"
    )


def _unchanged_unless_allowed(cel: str, subject: str, field: str) -> Rule:
    return Rule(f"{_ALLOWED} || {cel}", f"{subject} must not change: {_CONSEQUENCE_AND_FIX}", field=field)


def _same_member(*paths: str, interchangeable: tuple[str, str] | None = None) -> Rule:
    """Return the rule that the same field of a union stays set. `paths` are fields of the union.

    One of the two `interchangeable` fields may be replaced by the other one.
    """
    union = paths[0].split(".", maxsplit=1)[0]
    same = " && ".join(f"({_has('self', path)}) == ({_has('oldSelf', path)})" for path in paths)
    allowed = [f"({same})"]
    if interchangeable:
        for old, new in (interchangeable, interchangeable[::-1]):
            allowed.append(f"({_has('oldSelf', old)} && {_has('self', new)})")
    return _unchanged_unless_allowed(" || ".join(allowed), f"The type of spec.{union}", f".{union}")


def _same_field_of(path: str, member: str, subject: str | None = None) -> Rule:
    """Return the rule that `member` is unchanged while the field `path` of a union stays set."""
    return _unchanged_unless_allowed(
        f"!({_set_in_both(path)}) || ({_same(f'{path}.{member}')})",
        subject or f"spec.{path}.{member}",
        f".{path.split('.', maxsplit=1)[0]}",
    )


def _any_present(members: tuple[str, ...]) -> str:
    """Return the CEL expression that one of `members` is set before or after the update."""
    return " || ".join(f"({_has(root, member)})" for member in members for root in ("self", "oldSelf"))


def _size_does_not_shrink(union: str, other_fields: tuple[str, ...], default: str) -> Rule:
    size = f"{union}.embedded.storage.size"

    def quantity(root: str) -> str:
        return f"({_has(root, size)} ? quantity({root}.{size}) : quantity('{default}'))"

    return Rule(
        # Another rule rejects a value that is not a quantity.
        f"{_any_present(other_fields)} || "
        f"({_has('self', size)} && !isQuantity(self.{size})) || "
        f"{quantity('self')}.compareTo({quantity('oldSelf')}) >= 0",
        f"spec.{size} must not decrease, because volumes cannot shrink: set the previous size or a larger one "
        f"(the default is {default})",
        field=f".{union}",
    )


def _same_storage_class(union: str, other_fields: tuple[str, ...]) -> Rule:
    path = f"{union}.embedded.storage.storageClassName"
    return Rule(
        f"{_any_present(other_fields)} || ({_same(path)})",
        f"spec.{path} must not change, because the storage class of a volume is immutable: restore the previous "
        "value, or remove the field if it was not set; to use another class, create a new server",
        field=f".{union}",
    )


def _same_s3_host() -> str:
    endpoint = f"{S3}.endpoint"
    is_set, was_set = _has("self", endpoint), _has("oldSelf", endpoint)
    without_tls = "replace('https://', 'http://')"
    host = f"self.{endpoint}.{without_tls} == oldSelf.{endpoint}.{without_tls}"
    return f"({is_set}) == ({was_set}) && (!({is_set} && {was_set}) || {host})"


TRANSITION_RULES = (
    _same_member(*NON_EMBEDDED_DATABASES, interchangeable=(PROVISIONED_DATABASE, PLATFORM_DATABASE)),
    _same_member(S3, interchangeable=(S3, PLATFORM_ARTIFACTS)),
    _same_member(EXTERNAL_ARTIFACTS),
    _unchanged_unless_allowed(
        f"!({_set_in_both(HOST)}) || ({_same(HOST)} && {_same_or_default(f'{EXTERNAL_DATABASE}.port', '5432')})",
        f"spec.{HOST} or its port",
        ".database",
    ),
    _unchanged_unless_allowed(
        f"!({_set_in_both(HOST)}) || ({_same_or_default(f'{EXTERNAL_DATABASE}.databaseName', repr('mlflow'))})",
        f"spec.{EXTERNAL_DATABASE}.databaseName",
        ".database",
    ),
    _unchanged_unless_allowed(
        f"!({_set_in_both(PROVISIONED_DATABASE)}) || "
        f"({_same(f'{PROVISIONED_DATABASE}.host')} && {_same_or_default(f'{PROVISIONED_DATABASE}.port', '5432')})",
        f"spec.{PROVISIONED_DATABASE}.host or port",
        ".database",
    ),
    _unchanged_unless_allowed(
        f"!({_set_in_both(PROVISIONED_DATABASE)}) || "
        f"({_same(f'{PROVISIONED_DATABASE}.databaseName')} && {_same(f'{PROVISIONED_DATABASE}.roleName')})",
        f"spec.{PROVISIONED_DATABASE}.databaseName or roleName",
        ".database",
    ),
    _unchanged_unless_allowed(
        f"!({_set_in_both(CLOUD_NATIVE_PG_DATABASE)}) || ({_same(f'{CLOUD_NATIVE_PG_DATABASE}.clusterName')} && "
        f"{_same_or_default(f'{CLOUD_NATIVE_PG_DATABASE}.databaseName', repr('app'))})",
        f"spec.{CLOUD_NATIVE_PG_DATABASE}.clusterName or databaseName",
        ".database",
    ),
    # A change from http to https is not another store: only host and port are compared.
    _unchanged_unless_allowed(
        f"!({_set_in_both(S3)}) || ({_same_s3_host()})",
        "The host of spec.artifacts.s3.endpoint",
        ".artifacts",
    ),
    _unchanged_unless_allowed(_same_or_default(ENGINE, repr("MinIO")), f"spec.{ENGINE}", ".artifacts"),
    _same_field_of(S3, "bucket"),
    _same_field_of(S3, "prefix"),
    _same_field_of(EXTERNAL_ARTIFACTS, "uri"),
    Rule(
        f"{_ALLOWED} || {_same_or_default('artifacts.access', repr('Proxied'))}",
        "spec.artifacts.access must not change, because clients may not be able to connect to the server or the store "
        "in the new way. Restore the previous value, or set spec.storageChangePolicy to Allow to confirm the change",
        field=".artifacts",
    ),
    _size_does_not_shrink("database", (*NON_EMBEDDED_DATABASES, PLATFORM_DATABASE), DATABASE_SIZE),
    _size_does_not_shrink("artifacts", (S3, EXTERNAL_ARTIFACTS, PLATFORM_ARTIFACTS), ARTIFACTS_SIZE),
    _same_storage_class("database", (*NON_EMBEDDED_DATABASES, PLATFORM_DATABASE)),
    _same_storage_class("artifacts", (S3, EXTERNAL_ARTIFACTS, PLATFORM_ARTIFACTS)),
)
