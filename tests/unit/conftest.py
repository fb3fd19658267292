"""What the controller's tests share: a loop whose time is virtual, and an API server in memory."""

import asyncio
import copy
import itertools
import selectors
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from mlflow_operator.kube import schema_fields
from mlflow_operator.kube.errors import AlreadyExists, Conflict, Invalid
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object

T = TypeVar("T")


class _NoWait(selectors.DefaultSelector):
    """Never sleeps: what the loop would have waited is added to its clock instead."""

    def __init__(self, clock: "VirtualLoop") -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        if not ready and timeout:
            self._clock.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in which hours pass in no time and always alike."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_NoWait(self))

    def time(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def virtual() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a coroutine to its end in virtual time."""

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(coroutine)

    return run


_UIDS = itertools.count(1)
"""Of all clusters together: what remembers an object by its uid must not take one of another test for it."""


class FakeCluster:
    """An API server in memory, in place of `Cluster`: enough of server-side apply to hold promises against.

    It knows resourceVersions, uids, list-maps and what was applied last; it has no defaults, and of all
    validation only that an environment variable has one source. `writes` tells what was asked of it.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.writes: list[tuple[str, str]] = []
        self._applied: dict[tuple[str, str], Object] = {}
        self._numbers = itertools.count(1)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        return copy.deepcopy(self.objects.get((kind.kind, name)))

    async def create(self, obj: Object) -> Object:
        self._note("create", obj)
        if _key(obj) in self.objects:
            raise AlreadyExists(f"create {_key(obj)}: 409")
        return self._store(copy.deepcopy(obj))

    async def apply(self, obj: Object) -> Object:
        self._note("apply", obj)
        key, obj = _key(obj), copy.deepcopy(obj)
        live = copy.deepcopy(self.objects.get(key))
        uid = obj["metadata"].pop("uid", None)
        if uid is not None and (live is None or live["metadata"]["uid"] != uid):
            raise Conflict(f"apply {key}: 409")
        merged = merge(live or {}, obj, self._applied.get(key, {}), "")
        _refuse_two_choices(merged)
        self._applied[key] = obj
        return self._store(merged)

    async def json_patch(
        self, kind: Kind, namespace: str | None, name: str, steps: Sequence[Object]
    ) -> Object:
        self._note("patch", {"kind": kind.kind, "metadata": {"name": name}})
        live = copy.deepcopy(self.objects[kind.kind, name])
        for step in steps:
            *way, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
            place: Any = live
            for part in way:
                place = place[int(part)] if isinstance(place, list) else place[part]
            where: Any = int(last) if isinstance(place, list) else last
            if step["op"] == "test" and place[where] != step["value"]:
                raise Conflict("patch: test failed")
            if step["op"] == "remove":
                del place[where]
            if step["op"] in ("add", "replace"):
                place[where] = step["value"]
        return self._store(live)

    async def delete(self, obj: Object) -> None:
        self._note("delete", obj)
        live = self.objects.get(_key(obj))
        if live is None:
            return
        if live["metadata"]["uid"] != obj["metadata"]["uid"]:
            raise Conflict(f"delete {_key(obj)}: 409")
        del self.objects[_key(obj)]

    def put(self, obj: Object) -> Object:
        """Store an object as somebody else would, past all rules."""
        return self._store(copy.deepcopy(obj))

    def edit(self, kind: str, name: str, change: Callable[[Object], object]) -> Object:
        """Change a stored object as `kubectl edit` would."""
        obj = copy.deepcopy(self.objects[kind, name])
        change(obj)
        return self._store(obj)

    def _note(self, verb: str, obj: Object) -> None:
        self.writes.append((verb, "/".join(_key(obj))))

    def _store(self, obj: Object) -> Object:
        before = self.objects.get(_key(obj))
        obj["metadata"].setdefault("uid", before["metadata"]["uid"] if before else f"uid-{next(_UIDS)}")
        if obj != before:
            obj["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.objects[_key(obj)] = obj
        return copy.deepcopy(obj)


def _key(obj: Object) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


def _refuse_two_choices(obj: Object) -> None:
    pods = obj.get("spec", {}).get("template", {}).get("spec", {})
    for container in pods.get("containers", []):
        if any("value" in variable and "valueFrom" in variable for variable in container.get("env", [])):
            raise Invalid("apply: 422", ("spec.template.spec.containers[0].env[0].valueFrom",))


def merge(live: Any, wanted: Any, before: Any, field: str) -> Any:
    """Server-side apply of one value, as its manager who applied `before` the last time."""
    if isinstance(wanted, dict):
        live, before = (value if isinstance(value, dict) else {} for value in (live, before))
        kept = {name: value for name, value in live.items() if name in wanted or name not in before}
        return kept | {
            name: merge(live.get(name), value, before.get(name), name) for name, value in wanted.items()
        }
    keys = schema_fields.keys_of(field, wanted) if isinstance(wanted, list) else ()
    if not keys:
        return wanted
    found, earlier, ours = (
        {schema_fields.key_of(entry, keys): entry for entry in entries or []}
        for entries in (live, before, wanted)
    )
    kept_entries = [entry for key, entry in found.items() if key not in ours and key not in earlier]
    return kept_entries + [merge(found.get(key), entry, earlier.get(key), "") for key, entry in ours.items()]


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()
