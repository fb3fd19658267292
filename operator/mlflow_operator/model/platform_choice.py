"""Which stores of which platform a server uses: decided once, before anything is created, and then recorded.

A platform that appears later moves no server. Neither does one that changes: `check_location` reports it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlflow_operator import api
from mlflow_operator.api.mlflowserver import Spec, StorageChangePolicy
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning, storage_location
from mlflow_operator.model.platform import Part, Platform, PlatformUse
from mlflow_operator.model.server import ObjectStore, ProvisionedDatabase, Server, ServerRef
from mlflow_operator.status.conditions import ConditionType, Reason
from mlflow_operator.status.errors import ConfigurationError

FIELDS: Mapping[Part, str] = {Part.DATABASE: "spec.database", Part.ARTIFACTS: "spec.artifacts"}
"""The field of an MLflowServer that chooses each store."""

NOUNS: Mapping[Part, str] = {Part.DATABASE: "database", Part.ARTIFACTS: "artifact store"}
"""What messages call each store."""


@dataclass(frozen=True)
class Request:
    """What a server requests of platforms.

    `name`: the platform, None for the default. `explicit`: the stores that the spec requests by their own fields.
    `open`: those for which the spec sets no field. `recorded`: those that the server already uses, None if nothing is
    recorded. `is_new`: the operator has not created anything for the server yet. `added`: those that the platform must
    already contain, because the server has its data there without a platform.
    """

    name: str | None
    explicit: frozenset[Part]
    open: frozenset[Part]
    recorded: frozenset[Part] | None
    is_new: bool
    added: frozenset[Part] = frozenset()

    @property
    def is_required(self) -> bool:
        """Whether the server cannot do without a platform."""
        return bool(self.name or self.explicit)

    def parts(self, platform: Platform) -> frozenset[Part]:
        """Return the stores of `platform` that the server uses. Raises ConfigurationError if it does not offer one."""
        used = self.explicit
        if self.recorded is not None:
            used |= self.recorded & self.open
        elif self.is_new:
            used |= platform.parts & self.open
        missing = sorted(used - platform.parts)
        if missing:
            noun, field = NOUNS[missing[0]], FIELDS[missing[0]]
            raise ConfigurationError(
                Reason.PLATFORM_NOT_ALLOWED,
                f'MLflowPlatform "{platform.name}" offers no {noun}. Ask its administrator to add one, use another '
                f"platform in spec.platformRef, or configure another {noun} in {field}.",
            )
        return used


def request(resource: api.MLflowServer) -> Request | None:
    """Return what a server requests of platforms, None if nothing.

    Raises ConfigurationError if it would change to other data without permission.
    """
    spec, recorded = resource.spec, resource.status.platform
    explicit, open_parts = _explicit(spec), _open(spec)
    reference = spec.platform_ref.name if spec.platform_ref else None
    has_started = _has_started(resource)
    may_choose = recorded is None and not has_started and bool(reference or open_parts)
    # A server that has left its platform, whose record has no parts, no longer depends on it.
    is_bound = recorded is not None and bool(reference or recorded.parts)
    if not (explicit or may_choose or is_bound):
        return None
    found = Request(
        reference or (recorded.name if recorded else None),
        explicit,
        open_parts,
        frozenset(part for part in Part if part in recorded.parts) if recorded else None,
        is_new=recorded is None and not has_started,
    )
    has_data = resource.status.database is not None
    if not has_data or spec.storage_change_policy is StorageChangePolicy.ALLOW:
        return found
    _check_same_stores(found, recorded.name if recorded else None)
    return replace(found, added=explicit - (found.recorded or frozenset()))


def names(resource: Object) -> frozenset[str]:
    """Return the names of the platforms that a server uses or requests by name. `resource` may be invalid."""
    holders = (resource.get("status") or {}).get("platform"), (resource.get("spec") or {}).get("platformRef")
    found = (holder.get("name") for holder in holders if isinstance(holder, dict))
    return frozenset(name for name in found if name and isinstance(name, str))


def takes_defaults(resource: api.MLflowServer) -> bool:
    """Whether the server is created now. Later, no edit of a platform may restart its pods or migrate its database."""
    status = resource.status
    is_recorded = status.platform is not None or status.platform_defaults is not None
    return not (is_recorded or _has_started(resource))


def is_decided(resource: api.MLflowServer, requested: Request | None) -> bool:
    """Whether an earlier reconcile decided which platform and which defaults the server uses, and nothing is requested
    in addition. This reconcile then only checks them.
    """
    if takes_defaults(resource):
        return False
    if requested is None:
        return True
    recorded = resource.status.platform
    is_same = recorded is not None and recorded.name == requested.name
    return is_same and requested.explicit <= (requested.recorded or frozenset())


def _has_started(resource: api.MLflowServer) -> bool:
    """Whether the operator may have created something for the server."""
    return resource.status.database is not None or any(
        condition.type == ConditionType.CREDENTIALS for condition in resource.status.conditions
    )


def allowed(platform: Platform, namespace: str, labels: Mapping[str, str]) -> Platform:
    """Return `platform`. Raises ConfigurationError if it does not select the namespace with these labels."""
    if not platform.selects(labels):
        raise ConfigurationError(
            Reason.PLATFORM_NOT_ALLOWED,
            f'MLflowPlatform "{platform.name}" does not select namespace {namespace}. Ask its administrator to label '
            "the namespace as its spec.namespaceSelector requires, or use another platform in spec.platformRef.",
        )
    return platform


def check_taken_over(added: frozenset[Part], use: PlatformUse, owner: ServerRef, status: Object) -> None:
    """Raise ConfigurationError unless the stores in `added` are those that the server uses already.

    Then the platform takes them over, and no data stays behind.
    """
    for part in sorted(added):
        if part is Part.DATABASE:
            recorded, change = (
                status.get("database") or {},
                _database_change(use.server_database(owner), status),
            )
            is_known = bool(recorded.get("host"))
        else:
            recorded, change = (
                status.get("artifacts") or {},
                _store_change(use.server_store(owner, ()), status),
            )
            is_known = bool(recorded.get("uri"))
        if change or not is_known:
            old, new = change or ("its present one", "that of a platform")
            raise ConfigurationError(
                Reason.STORAGE_CHANGE_REFUSED,
                f"The {NOUNS[part]} of the server would change from {old} to {new}, and everything logged so far "
                f"would stay in the old one. Restore {FIELDS[part]}, or set spec.storageChangePolicy to Allow to "
                "switch.",
            )


def check_earlier_store(
    part: Part, values: Mapping[str, str], use: PlatformUse | None, owner: ServerRef, secret: str
) -> None:
    """Raise ConfigurationError if `values` of a generated Secret lead to another store than the one of `use`.

    Embedded stores are not concerned: their volumes decide.
    """
    if part is Part.DATABASE:
        database = use.server_database(owner) if use else None
        old, service = (values.get("host", ""), values.get("port", "")), owner.names.postgres
        is_known = values.get("dbname") == provisioning.derived_name(owner)
        new = (database.host, str(database.port)) if database else None
        host, text = old[0], ":".join(old)
    else:
        store = use.server_store(owner, ()) if use else None
        endpoint, bucket = values.get("endpoint", ""), values.get("bucket", "")
        old, service = (endpoint.partition("://")[2], bucket), owner.names.artifact_store
        is_known = bool(bucket)
        new = ((store.endpoint or "").partition("://")[2], store.bucket) if store else None
        host, text = old[0], f"{endpoint}/{bucket}"
    if not host or not is_known or host.startswith(f"{service}.") or old == new:
        return
    raise ConfigurationError(
        Reason.STORAGE_CHANGE_REFUSED,
        f'An earlier server of this name had its {NOUNS[part]} at {text}, according to Secret "{secret}". This server '
        "would start with another one, without what was logged there. To use it, name its platform in "
        f"spec.platformRef, or configure it in {FIELDS[part]}. To start without it, delete the Secret, or set "
        "spec.storageChangePolicy to Allow.",
    )


def check_location(server: Server, status: Object) -> None:
    """Raise ConfigurationError if the platform now has other stores than those that the server uses.

    The server would start with other, probably empty, stores. Its pods keep using the recorded ones.
    """
    if server.storage_change_allowed:
        return
    database, store = server.database, server.artifacts.s3
    if isinstance(database, ProvisionedDatabase) and database.origin:
        change = _database_change(database, status)
        if change:
            raise _moved(database.origin.name, Part.DATABASE, *change)
    if store and store.origin:
        change = _store_change(store, status)
        if change:
            raise _moved(store.origin.name, Part.ARTIFACTS, *change)


def _database_change(database: ProvisionedDatabase | None, status: Object) -> tuple[str, str] | None:
    """The recorded database and `database` as text; None if they are the same, or if none is recorded."""
    recorded = status.get("database") or {}
    if database is None or not recorded.get("host"):
        return None
    current = {"host": database.host, "port": database.port, "name": database.database}
    if storage_location.is_same_database(recorded, current):
        return None
    return storage_location.as_text(recorded), storage_location.as_text(current)


def _store_change(store: ObjectStore | None, status: Object) -> tuple[str, str] | None:
    """The recorded artifact location and that of `store` as text; None if they are the same, or if none is recorded."""
    recorded = status.get("artifacts") or {}
    if store is None or not recorded.get("uri"):
        return None
    old_location = str(recorded.get("endpoint") or ""), str(recorded["uri"])
    new_location = store.endpoint or "", store.uri
    if _without_scheme(old_location) == _without_scheme(new_location):
        return None
    old, new = (f"{uri} at {endpoint}" if endpoint else uri for endpoint, uri in (old_location, new_location))
    return old, new


def _without_scheme(location: tuple[str, str]) -> tuple[str, str]:
    """A change from http to https is not another store."""
    endpoint, uri = location
    return endpoint.partition("://")[2], uri


def _moved(platform: str, part: Part, old: str, new: str) -> ConfigurationError:
    return ConfigurationError(
        Reason.STORAGE_CHANGE_REFUSED,
        f'The {NOUNS[part]} of MLflowPlatform "{platform}" for this server is now {new}, and the server uses {old}. '
        "Everything logged so far would stay there. Ask the administrator of the platform to restore it, or set "
        "spec.storageChangePolicy to Allow to switch.",
    )


def _explicit(spec: Spec) -> frozenset[Part]:
    members = {Part.DATABASE: spec.database.platform, Part.ARTIFACTS: spec.artifacts.platform}
    return frozenset(part for part, member in members.items() if member is not None)


def _open(spec: Spec) -> frozenset[Part]:
    database, artifacts = spec.database, spec.artifacts
    members = {
        Part.DATABASE: (
            *(database.embedded, database.external, database.provision),
            *(database.cloud_native_pg, database.platform),
        ),
        Part.ARTIFACTS: (artifacts.embedded, artifacts.s3, artifacts.external, artifacts.platform),
    }
    return frozenset(part for part, values in members.items() if all(value is None for value in values))


def _check_same_stores(requested: Request, recorded_name: str | None) -> None:
    recorded = requested.recorded or frozenset()
    if recorded and requested.name != recorded_name:
        raise ConfigurationError(
            Reason.STORAGE_CHANGE_REFUSED,
            f'The server uses the stores of MLflowPlatform "{recorded_name}", and spec.platformRef names '
            f'"{requested.name}". Everything logged so far would stay on the first one. Restore spec.platformRef, or '
            "set spec.storageChangePolicy to Allow to switch.",
        )
    for part in sorted(recorded - requested.explicit - requested.open):
        raise ConfigurationError(
            Reason.STORAGE_CHANGE_REFUSED,
            f"The {NOUNS[part]} of the server would change from that of its platform, and everything logged so far "
            f"would stay in the old one. Restore {FIELDS[part]}, or set spec.storageChangePolicy to Allow to switch.",
        )
