"""Changes of a stored resource that would lose sight of data, refused until somebody says it is meant.

Absent members count as what they stand for: no `database` is an embedded one, no `storage` has its default
size. What only a Secret tells (the host inside a URI) can't be compared here; the operator does that and
reports `StorageChangeRefused`.

The API server estimates what a rule may cost from the sizes in the schema, and loses track of them behind optionals
(`.?`) and conditionals. So members are guarded by `has()`, and values compared where they stand.
"""

from mlflow_operator.api.rules import Rule
from mlflow_operator.api.storage import ARTIFACTS_SIZE, DATABASE_SIZE

EXTERNAL = "database.external"
PROVISION = "database.provision"
CLOUD_NATIVE_PG = "database.cloudNativePG"
DATABASES = (EXTERNAL, PROVISION, CLOUD_NATIVE_PG)
"""All but the embedded one."""

HOST = f"{EXTERNAL}.host"
S3 = "artifacts.s3"
ENGINE = "artifacts.embedded.engine"
FOREIGN = "artifacts.external"

_ALLOWED = "self.storageChangePolicy == 'Allow'"
_WAY_OUT = (
    "the server would start on other data, the old is not moved. Put the old value back, or, if it is meant, "
    "set spec.storageChangePolicy to Allow"
)


def _has(which: str, path: str) -> str:
    """Return CEL that `path` below `which` (`self`, `oldSelf`) is there, its parents included."""
    parts = path.split(".")
    return " && ".join(f"has({'.'.join([which, *parts[: depth + 1]])})" for depth in range(len(parts)))


def _in_both(path: str) -> str:
    return f"{_has('self', path)} && {_has('oldSelf', path)}"


def _same(path: str) -> str:
    """Return CEL that a scalar is the same before and after, or absent both times."""
    here, there = _has("self", path), _has("oldSelf", path)
    return f"({here}) == ({there}) && (!({here} && {there}) || self.{path} == oldSelf.{path})"


def _same_or(path: str, default: str) -> str:
    """Return CEL that a scalar is the same before and after, where absent means `default`."""
    here, there = _has("self", path), _has("oldSelf", path)
    return (
        f"({here} ? ({there} ? self.{path} == oldSelf.{path} : self.{path} == {default}) : "
        f"(!({there}) || oldSelf.{path} == {default}))"
    )


def _kept(cel: str, subject: str, field: str) -> Rule:
    return Rule(f"{_ALLOWED} || {cel}", f"{subject} changed: {_WAY_OUT}", field=field)


def _member(*paths: str) -> Rule:
    """Return the rule that the union whose other members are at `paths` keeps the one it has."""
    union = paths[0].split(".", maxsplit=1)[0]
    same = " && ".join(f"({_has('self', path)}) == ({_has('oldSelf', path)})" for path in paths)
    return _kept(f"({same})", f"The member of spec.{union}", f".{union}")


def _while_there(path: str, member: str, subject: str | None = None) -> Rule:
    """Return the rule that `member` stays while the union's member `path` stays."""
    return _kept(
        f"!({_in_both(path)}) || ({_same(f'{path}.{member}')})",
        subject or f"spec.{path}.{member}",
        f".{path.split('.', maxsplit=1)[0]}",
    )


def _any_there(members: tuple[str, ...]) -> str:
    """Return CEL that one of the union's other members is there, before or after."""
    return " || ".join(f"({_has(which, member)})" for member in members for which in ("self", "oldSelf"))


def _never_smaller(union: str, others: tuple[str, ...], default: str) -> Rule:
    size = f"{union}.embedded.storage.size"

    def quantity(which: str) -> str:
        return f"({_has(which, size)} ? quantity({which}.{size}) : quantity('{default}'))"

    return Rule(
        # What is no quantity is refused where it stands, with a sentence of its own.
        f"{_any_there(others)} || "
        f"({_has('self', size)} && !isQuantity(self.{size})) || "
        f"{quantity('self')}.compareTo({quantity('oldSelf')}) >= 0",
        f"spec.{size} got smaller, and a volume can't shrink: put the old size back, or a larger one "
        f"(absent, it is {default})",
        field=f".{union}",
    )


def _same_class(union: str, others: tuple[str, ...]) -> Rule:
    path = f"{union}.embedded.storage.storageClassName"
    return Rule(
        f"{_any_there(others)} || ({_same(path)})",
        f"spec.{path} changed, and a volume stays in its class: put the old value back (or leave it out as "
        "before); for another class make a new server",
        field=f".{union}",
    )


def _same_host() -> str:
    endpoint = f"{S3}.endpoint"
    here, there = _has("self", endpoint), _has("oldSelf", endpoint)
    plain = "replace('https://', 'http://')"
    host = f"self.{endpoint}.{plain} == oldSelf.{endpoint}.{plain}"
    return f"({here}) == ({there}) && (!({here} && {there}) || {host})"


CHANGE_RULES = (
    _member(*DATABASES),
    _member(S3),
    _member(FOREIGN),
    _kept(
        f"!({_in_both(HOST)}) || ({_same(HOST)} && {_same_or(f'{EXTERNAL}.port', '5432')})",
        f"spec.{HOST} or its port",
        ".database",
    ),
    _kept(
        f"!({_in_both(HOST)}) || ({_same_or(f'{EXTERNAL}.databaseName', repr('mlflow'))})",
        f"spec.{EXTERNAL}.databaseName",
        ".database",
    ),
    _kept(
        f"!({_in_both(PROVISION)}) || "
        f"({_same(f'{PROVISION}.host')} && {_same_or(f'{PROVISION}.port', '5432')})",
        f"spec.{PROVISION}.host or port",
        ".database",
    ),
    _kept(
        f"!({_in_both(PROVISION)}) || "
        f"({_same(f'{PROVISION}.databaseName')} && {_same(f'{PROVISION}.roleName')})",
        f"spec.{PROVISION}.databaseName or roleName",
        ".database",
    ),
    _kept(
        f"!({_in_both(CLOUD_NATIVE_PG)}) || ({_same(f'{CLOUD_NATIVE_PG}.clusterName')} && "
        f"{_same_or(f'{CLOUD_NATIVE_PG}.databaseName', repr('app'))})",
        f"spec.{CLOUD_NATIVE_PG}.clusterName or databaseName",
        ".database",
    ),
    # http becoming https is no other store: hosts are compared, ports included.
    _kept(f"!({_in_both(S3)}) || ({_same_host()})", "The host of spec.artifacts.s3.endpoint", ".artifacts"),
    _kept(_same_or(ENGINE, repr("MinIO")), f"spec.{ENGINE}", ".artifacts"),
    _while_there(S3, "bucket"),
    _while_there(S3, "prefix"),
    _while_there(FOREIGN, "uri"),
    Rule(
        f"{_ALLOWED} || {_same_or('artifacts.access', repr('Proxied'))}",
        "spec.artifacts.access changed: clients would have to reach the store where they did not before, or the "
        "other way round. Put the old value back, or, if it is meant, set spec.storageChangePolicy to Allow",
        field=".artifacts",
    ),
    _never_smaller("database", DATABASES, DATABASE_SIZE),
    _never_smaller("artifacts", (S3, FOREIGN), ARTIFACTS_SIZE),
    _same_class("database", DATABASES),
    _same_class("artifacts", (S3, FOREIGN)),
)
