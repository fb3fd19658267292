"""Which defaults of a platform a server takes, and how they are combined with its spec."""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlflow_operator import api
from mlflow_operator.api.crd import PLATFORM, openapi_schema
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import server_defaults
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from tests.unit.api.platform_refusals import platform
from tests.unit.api.specs import specs
from tests.unit.model.test_platform_policy import resolved
from tests.unit.servers import resource

DEFAULTS: Object = {
    "version": "3.17.2",
    "imagePullSecrets": [{"name": "registry"}],
    "podMetadata": {"labels": {"a": "b", "c": "d"}, "annotations": {"e": "f"}},
    "backup": {"schedule": "0 4 * * *"},
    "garbageCollection": {"olderThan": "24h"},
}
EXTERNAL: Object = {"artifacts": {"external": {"uri": "gs://bucket"}}}


def taken(spec: Object, **defaults: Any) -> Object:
    """What a server with this spec takes."""
    return server_defaults.taken(resource(spec).spec, resolved(platform(serverDefaults=defaults or DEFAULTS)))


def test_fields_are_those_of_the_platform() -> None:
    """A default that is added later is recorded, too."""
    fields = openapi_schema(PLATFORM)["properties"]["spec"]["properties"]["serverDefaults"]["properties"]
    status = openapi_schema()["properties"]["status"]["properties"]["platformDefaults"]["properties"]
    assert {*taken({})} == {"platform", *fields} == {*status}


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"version": "3.16.0"}, {"version"}),
        ({"image": "own"}, {"version"}),
        ({"podTemplate": {"spec": {"imagePullSecrets": [{"name": "own"}]}}}, {"imagePullSecrets"}),
        ({"podTemplate": {"spec": {"imagePullSecrets": []}}}, {"imagePullSecrets"}),
        ({"backup": {}}, {"backup"}),
        ({"garbageCollection": {"mode": "DryRun"}}, {"garbageCollection"}),
        (EXTERNAL, {"backup"}),
    ],
)
def test_only_fields_that_the_spec_leaves_out_are_taken(spec: Object, fields: set[str]) -> None:
    assert {*taken({})} - {*taken(spec)} == fields
    applied = server_defaults.apply(resource(spec), taken({})).spec
    own = resource(spec).spec
    if "imagePullSecrets" in fields:
        assert applied.pod_template.spec.image_pull_secrets == own.pod_template.spec.image_pull_secrets
    assert applied.version == own.version
    assert "backup" not in fields or applied.backup == own.backup
    assert "garbageCollection" not in fields or applied.garbage_collection == own.garbage_collection


def test_default_bucket_is_used_without_an_own_s3_store() -> None:
    recorded = taken(EXTERNAL, backup={"s3": {"bucket": "backups"}})
    applied = server_defaults.apply(resource(EXTERNAL), recorded).spec
    assert applied.backup
    assert applied.backup.s3
    assert applied.backup.s3.bucket == "backups"


def test_pod_metadata_is_merged_by_key() -> None:
    spec = {"podTemplate": {"metadata": {"labels": {"a": "own"}, "annotations": {"g": "h"}}}}
    recorded = taken(spec)
    assert recorded["podMetadata"] == {"labels": {"c": "d"}, "annotations": {"e": "f"}}
    metadata = server_defaults.apply(resource(spec), recorded).spec.pod_template.metadata
    assert metadata.labels == {"a": "own", "c": "d"}
    assert metadata.annotations == {"e": "f", "g": "h"}


def test_many_labels_are_merged() -> None:
    """Together they may be more than the CRD allows in one place."""
    offered, own = ({f"{name}{number}": "x" for number in range(64)} for name in "ab")
    spec = {"podTemplate": {"metadata": {"labels": own}}}
    recorded = taken(spec, podMetadata={"labels": offered})
    assert len(server_defaults.apply(resource(spec), recorded).spec.pod_template.metadata.labels) == 128


def test_without_defaults_nothing_changes() -> None:
    server = resource({"version": "3.16.0"})
    assert server_defaults.taken(server.spec, resolved(platform())) == {}
    assert server_defaults.apply(server, {}) is server


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(specs(arbitrary_one_in=0))
def test_own_values_of_random_servers_win(spec: Object) -> None:
    """Every field that the spec sets keeps its value, and the result can be resolved."""
    try:
        server = resource(spec)
    except api.InvalidResource:
        assume(False)
        raise
    recorded = taken(spec)
    applied = server_defaults.apply(server, recorded)
    before, after = server.spec.manifest(), applied.spec.manifest()
    template, merged = before.pop("podTemplate"), after.pop("podTemplate")
    assert before.items() <= after.items()
    assert {*after} - {*before} <= {"backup", "garbageCollection"}
    for field in ("labels", "annotations"):
        assert template["metadata"][field].items() <= merged["metadata"][field].items()
    if "imagePullSecrets" in (spec.get("podTemplate") or {}).get("spec", {}):
        assert template["spec"] == merged["spec"]
    assert (
        resolve(applied, ClusterDefaults(Images())).version
        == resolve(server, ClusterDefaults(Images())).version
    )
    assert server_defaults.apply(applied, recorded) == applied


@given(st.sampled_from([{}, {"version": "3.16.0"}, {"image": "own"}]), st.sampled_from([None, "3.16.1"]))
def test_default_version_never_replaces_another_one(spec: Object, running: str | None) -> None:
    """Neither that of the spec nor that of the running server."""
    server = resource(spec, status={"version": running} if running else {})
    defaults = ClusterDefaults(Images(), default_version="3.17.2")
    assert resolve(server, defaults).version == (spec.get("version") or running or "3.17.2")
