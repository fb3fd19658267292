"""The definition of MLflowServer in the cluster, against the one that this version makes."""

import json
from collections.abc import Iterator
from typing import Any

from mlflow_operator.api.crd import custom_resource_definition
from mlflow_operator.api.mlflowserver import VERSION
from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.seen import ObservedCluster
from mlflow_operator.kube.objects import Object

_APPLY = (
    "Upgrade the chart, which brings it; without Helm: mlflow-operator crd | kubectl apply --server-side -f -"
)
_MOST = 5
"""Differing fields that are named."""


def check(seen: ObservedCluster) -> Finding:
    """Whether it is there, in use, and of this version's schema."""
    state, found, to_do = _judged(seen)
    return Finding("cluster", "definition", state, found, to_do)


def _judged(seen: ObservedCluster) -> tuple[State, str, str]:
    live = seen.definition
    if live is None:
        return (
            State.FAULT,
            "The cluster has no definition of MLflowServer, so it can hold none.",
            "Install the operator's chart; or: mlflow-operator crd | kubectl apply --server-side -f -",
        )
    if isinstance(live, Unobserved):
        return (
            State.UNKNOWN,
            f"It is there, but could not be compared with this version's: {live.why}",
            "Run doctor as somebody who may list customresourcedefinitions, or in the operator's pod.",
        )
    refused = _not_served(live)
    if refused:
        return State.FAULT, refused, _APPLY
    return _compared(live, seen)


def _not_served(live: Object) -> str:
    for condition in (live.get("status") or {}).get("conditions") or ():
        if condition.get("type") in {"Established", "NamesAccepted"} and condition.get("status") != "True":
            said = condition.get("message") or condition.get("reason")
            return f"The API server does not serve it: {said}"
    if _version(live) is None:
        return f"It does not serve {VERSION}."
    return ""


def _compared(live: Object, seen: ObservedCluster) -> tuple[State, str, str]:
    wanted = _schema(_version(custom_resource_definition()))
    lacks, beside, other = sorted_differences(wanted, _schema(_version(live)))
    if not (lacks or beside or other):
        return State.OK, f"as version {seen.version} makes it", ""
    parts = [
        f"{words} {_few(paths)}"
        for words, paths in (("lacks", lacks), ("has besides", beside), ("differs in", other))
        if paths
    ]
    found = f"It is not that of version {seen.version}: it {', '.join(parts)}."
    others = sorted({o.version for o in _operators(seen) if o.version and o.version != seen.version})
    if others:
        return (
            State.NOTE,
            f"{found} The operator's own version is {', '.join(others)}.",
            "To compare it with the operator's, run doctor in its pod.",
        )
    if beside and not lacks:
        return State.FAULT, f"{found} A newer version has been here.", "Upgrade the operator to that version."
    return State.FAULT, found, _APPLY


def _operators(seen: ObservedCluster) -> tuple[Any, ...]:
    return () if isinstance(seen.operators, Unobserved) else seen.operators


def _version(definition: Object) -> Object | None:
    for version in definition["spec"]["versions"]:
        if version["name"] == VERSION and version.get("served"):
            found: Object = version
            return found
    return None


def _schema(version: Object | None) -> Object:
    # as JSON knows it: no tuples, and whole numbers are whole
    schema: Object = json.loads(json.dumps((version or {}).get("schema", {}).get("openAPIV3Schema") or {}))
    return schema


def _few(paths: list[str]) -> str:
    more = f" and {len(paths) - _MOST} more" if len(paths) > _MOST else ""
    return ", ".join(paths[:_MOST]) + more


def sorted_differences(wanted: Object, live: Object) -> tuple[list[str], list[str], list[str]]:
    """Paths of fields that `live` lacks, has besides, and defines otherwise. Descriptions do not count."""
    sorts: dict[str, set[str]] = {"lacks": set(), "beside": set(), "other": set()}
    for sort, path in _differences(wanted, live, ""):
        sorts[sort].add(path or "its root")
    return sorted(sorts["lacks"]), sorted(sorts["beside"]), sorted(sorts["other"])


def _differences(wanted: Object, live: Object, path: str) -> Iterator[tuple[str, str]]:
    ours, theirs = wanted.get("properties") or {}, live.get("properties") or {}
    for name in {**ours, **theirs}:
        where = f"{path}.{name}".removeprefix(".")
        if name not in theirs:
            yield "lacks", where
        elif name not in ours:
            yield "beside", where
        else:
            yield from _differences(ours[name], theirs[name], where)
    for inner in ("items", "additionalProperties"):
        one, other = wanted.get(inner), live.get(inner)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, path + ("[]" if inner == "items" else ".*"))
        elif one != other:
            yield "other", path
    rest = {*wanted, *live} - {"properties", "items", "additionalProperties", "description"}
    if any(wanted.get(key) != live.get(key) for key in rest):
        yield "other", path
