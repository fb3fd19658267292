"""An in-memory API server."""

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from mlflow_operator.kube.apply import schema_fields
from mlflow_operator.kube.errors import AlreadyExists, Conflict, Invalid
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.read_limit import ReadLimit

_UIDS = itertools.count(1)
"""Unique across all fake clients: code that caches by uid must not confuse objects of two tests."""


class FakeKubernetesClient:
    """In-memory replacement for `KubernetesClient` that implements the parts of server-side apply that tests need.

    It supports resourceVersions, uids, list-maps and the last applied state. It sets no defaults, and it validates only
    that an environment variable has one source. `writes` records the write requests, except `rejected_creations`: those
    of `apply_new` that found an object of this name, and changed nothing.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.writes: list[tuple[str, str]] = []
        self.rejected_creations: list[str] = []
        self._last_applied: dict[tuple[str, str], Object] = {}
        self._resource_versions = itertools.count(1)

    async def get(
        self, kind: Kind, namespace: str | None, name: str, limit: ReadLimit | None = None
    ) -> Object | None:
        found = copy.deepcopy(self.objects.get((kind.kind, name)))
        if found and namespace and found["metadata"].get("namespace", namespace) != namespace:
            return None
        if limit is not None:
            limit.take(json.dumps(found).encode(), f"get {name}")
        return found

    async def create(self, obj: Object) -> Object:
        self._record_write("create", obj)
        if _key(obj) in self.objects:
            raise AlreadyExists(f"create {_key(obj)}: 409")
        return self._store(copy.deepcopy(obj))

    async def apply(self, obj: Object) -> Object:
        self._record_write("apply", obj)
        key, obj = _key(obj), copy.deepcopy(obj)
        observed = copy.deepcopy(self.objects.get(key))
        uid = obj["metadata"].pop("uid", None)
        if uid is not None and (observed is None or observed["metadata"]["uid"] != uid):
            raise Conflict(f"apply {key}: 409")
        merged = _merge(observed or {}, obj, self._last_applied.get(key, {}), "")
        _reject_two_env_sources(merged)
        self._last_applied[key] = obj
        return self._store(merged)

    async def apply_new(self, obj: Object) -> Object:
        if _key(obj) in self.objects:
            self.rejected_creations.append("/".join(_key(obj)))
            raise AlreadyExists(f"apply {_key(obj)}: 409")
        return await self.apply(obj)

    async def json_patch(
        self, kind: Kind, namespace: str | None, name: str, operations: Sequence[Object]
    ) -> Object:
        self._record_write("patch", {"kind": kind.kind, "metadata": {"name": name}})
        observed = copy.deepcopy(self.objects[kind.kind, name])
        for operation in operations:
            *parents, last = [
                part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
            ]
            parent: Any = observed
            for part in parents:
                parent = parent[int(part)] if isinstance(parent, list) else parent[part]
            key: Any = int(last) if isinstance(parent, list) else last
            if operation["op"] == "test" and parent[key] != operation["value"]:
                raise Conflict("patch: test failed")
            if operation["op"] == "remove":
                del parent[key]
            if operation["op"] in ("add", "replace"):
                parent[key] = operation["value"]
        return self._store(observed)

    async def delete(self, obj: Object) -> None:
        self._record_write("delete", obj)
        observed = self.objects.get(_key(obj))
        if observed is None:
            return
        if observed["metadata"]["uid"] != obj["metadata"]["uid"]:
            raise Conflict(f"delete {_key(obj)}: 409")
        del self.objects[_key(obj)]

    def put(self, obj: Object) -> Object:
        """Store an object like another client, without validation."""
        return self._store(copy.deepcopy(obj))

    def edit(self, kind: str, name: str, change: Callable[[Object], object]) -> Object:
        """Change a stored object like `kubectl edit`."""
        obj = copy.deepcopy(self.objects[kind, name])
        change(obj)
        return self._store(obj)

    def _record_write(self, verb: str, obj: Object) -> None:
        self.writes.append((verb, "/".join(_key(obj))))

    def _store(self, obj: Object) -> Object:
        previous = self.objects.get(_key(obj))
        obj["metadata"].setdefault("uid", previous["metadata"]["uid"] if previous else f"uid-{next(_UIDS)}")
        if obj != previous:
            obj["metadata"]["resourceVersion"] = str(next(self._resource_versions))
        self.objects[_key(obj)] = obj
        return copy.deepcopy(obj)


def _key(obj: Object) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


def _reject_two_env_sources(obj: Object) -> None:
    pods = obj.get("spec", {}).get("template", {}).get("spec", {})
    for container in pods.get("containers", []):
        if any("value" in variable and "valueFrom" in variable for variable in container.get("env", [])):
            raise Invalid("apply: 422", ("spec.template.spec.containers[0].env[0].valueFrom",))


def _merge(observed: Any, desired: Any, previous: Any, field: str) -> Any:
    """Server-side apply of one value by a manager whose last apply was `previous`."""
    if isinstance(desired, dict):
        observed, previous = (value if isinstance(value, dict) else {} for value in (observed, previous))
        unchanged = {
            name: value for name, value in observed.items() if name in desired or name not in previous
        }
        return unchanged | {
            name: _merge(observed.get(name), value, previous.get(name), name)
            for name, value in desired.items()
        }
    keys = schema_fields.list_map_keys(field, desired) if isinstance(desired, list) else ()
    if not keys:
        return desired
    observed_by_key, previous_by_key, desired_by_key = (
        {schema_fields.entry_key(entry, keys): entry for entry in entries or []}
        for entries in (observed, previous, desired)
    )
    unchanged_entries = [
        entry
        for key, entry in observed_by_key.items()
        if key not in desired_by_key and key not in previous_by_key
    ]
    return unchanged_entries + [
        _merge(observed_by_key.get(key), entry, previous_by_key.get(key), "")
        for key, entry in desired_by_key.items()
    ]
