"""Compare the CRDs in the cluster with those of this version."""

import json
from collections.abc import Iterator
from typing import Any

from mlflow_operator.api.crd import PLATFORM, SERVER, CustomResource, custom_resource_definition
from mlflow_operator.api.resource import VERSION
from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.observed import ObservedCluster
from mlflow_operator.kube.objects import Object

_UPDATE_CRD = (
    "Upgrade the chart, which includes the CRD. "
    "Without Helm: mlflow-operator crd | kubectl apply --server-side -f -"
)
_MAX_LISTED_FIELDS = 5
"""Maximum number of differing fields in the message."""


def check(cluster: ObservedCluster) -> Iterator[Finding]:
    """Whether each CRD exists, is served and has the schema of this version."""
    for name, resource, crd in (
        ("CRD", SERVER, cluster.crd),
        ("platform CRD", PLATFORM, cluster.platforms.crd),
    ):
        yield Finding("cluster", name, *_evaluate(resource, crd, cluster))


def _evaluate(
    resource: CustomResource, crd: Object | Unobserved | None, cluster: ObservedCluster
) -> tuple[State, str, str]:
    if crd is None:
        return (
            State.FAILED,
            f"The CRD of {resource.kind} is not installed.",
            "Install the operator's chart, or: mlflow-operator crd | kubectl apply --server-side -f -",
        )
    if isinstance(crd, Unobserved):
        return (
            State.UNKNOWN,
            f"The CRD exists, but could not be compared with this version's: {crd.reason}",
            "Use an account that is allowed to list customresourcedefinitions, or run doctor in the operator's pod.",
        )
    not_served = _not_served_reason(crd)
    if not_served:
        return State.FAILED, not_served, _UPDATE_CRD
    return _compare(resource, crd, cluster)


def _not_served_reason(crd: Object) -> str:
    for condition in (crd.get("status") or {}).get("conditions") or ():
        if condition.get("type") in {"Established", "NamesAccepted"} and condition.get("status") != "True":
            reason = condition.get("message") or condition.get("reason")
            return f"The API server does not serve the CRD: {reason}"
    if _served_version(crd) is None:
        return f"The CRD does not serve the version {VERSION}."
    return ""


def _compare(resource: CustomResource, crd: Object, cluster: ObservedCluster) -> tuple[State, str, str]:
    expected = _schema(_served_version(custom_resource_definition(resource)))
    missing, additional, different = schema_differences(expected, _schema(_served_version(crd)))
    if not (missing or additional or different):
        return State.OK, f"matches version {cluster.version}", ""
    parts = [
        f"{verb} {_abbreviate(paths)}"
        for verb, paths in (("lacks", missing), ("adds", additional), ("differs in", different))
        if paths
    ]
    message = f"The CRD is not that of version {cluster.version}: it {', '.join(parts)}."
    other_versions = sorted(
        {o.version for o in _operators(cluster) if o.version and o.version != cluster.version}
    )
    if other_versions:
        return (
            State.NOTE,
            f"{message} The version of the operator is {', '.join(other_versions)}.",
            "Run doctor in the operator's pod to compare the CRD with the operator's version.",
        )
    if additional and not missing:
        return (
            State.FAILED,
            f"{message} A newer version was installed.",
            "Upgrade the operator to that version.",
        )
    return State.FAILED, message, _UPDATE_CRD


def _operators(cluster: ObservedCluster) -> tuple[Any, ...]:
    return () if isinstance(cluster.operators, Unobserved) else cluster.operators


def _served_version(crd: Object) -> Object | None:
    for version in crd["spec"]["versions"]:
        if version["name"] == VERSION and version.get("served"):
            served: Object = version
            return served
    return None


def _schema(version: Object | None) -> Object:
    # Convert it as JSON does: no tuples, and integral floats compare equal.
    schema: Object = json.loads(json.dumps((version or {}).get("schema", {}).get("openAPIV3Schema") or {}))
    return schema


def _abbreviate(paths: list[str]) -> str:
    more = f" and {len(paths) - _MAX_LISTED_FIELDS} more" if len(paths) > _MAX_LISTED_FIELDS else ""
    return ", ".join(paths[:_MAX_LISTED_FIELDS]) + more


def schema_differences(expected: Object, observed: Object) -> tuple[list[str], list[str], list[str]]:
    """Paths of the fields that `observed` lacks, adds and defines differently. Descriptions are ignored."""
    paths_by_kind: dict[str, set[str]] = {"missing": set(), "additional": set(), "different": set()}
    for difference, path in _differences(expected, observed, ""):
        paths_by_kind[difference].add(path or "the root")
    return (
        sorted(paths_by_kind["missing"]),
        sorted(paths_by_kind["additional"]),
        sorted(paths_by_kind["different"]),
    )


def _differences(expected: Object, observed: Object, path: str) -> Iterator[tuple[str, str]]:
    expected_properties, observed_properties = (
        expected.get("properties") or {},
        observed.get("properties") or {},
    )
    for name in {**expected_properties, **observed_properties}:
        property_path = f"{path}.{name}".removeprefix(".")
        if name not in observed_properties:
            yield "missing", property_path
        elif name not in expected_properties:
            yield "additional", property_path
        else:
            yield from _differences(expected_properties[name], observed_properties[name], property_path)
    for key in ("items", "additionalProperties"):
        expected_schema, observed_schema = expected.get(key), observed.get(key)
        if isinstance(expected_schema, dict) and isinstance(observed_schema, dict):
            suffix = "[]" if key == "items" else ".*"
            yield from _differences(expected_schema, observed_schema, path + suffix)
        elif expected_schema != observed_schema:
            yield "different", path
    other_keys = {*expected, *observed} - {"properties", "items", "additionalProperties", "description"}
    if any(expected.get(key) != observed.get(key) for key in other_keys):
        yield "different", path
