"""Reading a resource without an API server: what the models take, refuse and say."""

from typing import Any

import pytest

from mlflow_operator.api import API_VERSION, KIND, InvalidResource, MLflowServer, parse
from tests.unit.api.refusals import ACCEPTED, CHANGED, PRUNED, WRITTEN, Consent, Refusal


def resource(spec: dict[str, Any], name: str = "server") -> dict[str, Any]:
    """A resource as somebody would write it."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: case.promise)
def test_what_the_api_server_refuses_is_refused_here_too(case: Refusal) -> None:
    """`render` has no API server, and a stored object may be older than a rule: same field, same words."""
    with pytest.raises(InvalidResource) as refused:
        parse(resource(case.spec, case.name))
    assert case.field.removesuffix("[0]").split(".")[-1].split("[")[0] in str(refused.value)
    assert case.words.lower() in str(refused.value).lower()


@pytest.mark.parametrize("case", [*ACCEPTED, *CHANGED, *PRUNED], ids=lambda case: case.promise)
def test_what_may_be_stored_can_be_read(case: Consent | Refusal) -> None:
    """Rules about changes are the API server's: for the operator each state is as good as another."""
    spec = {
        field: {name: value for name, value in part.items() if value is not None}
        if isinstance(part, dict)
        else part
        for field, part in case.spec.items()
    }
    assert parse(resource(spec, case.name)).metadata.name == case.name


def test_an_empty_spec_and_none_are_the_same_server() -> None:
    """The smallest useful resource has nothing to say."""
    assert parse({"metadata": {"name": "a"}}).spec == parse(resource({})).spec


def test_fields_of_a_newer_operator_are_ignored() -> None:
    """After a downgrade the stored object is still read."""
    newer = resource({"backup": {"schedule": "@daily"}, "database": {"embedded": {"instances": 3}}})
    newer["status"] = {"version": "4.0.0", "database": {"type": "CloudNativePG"}, "backup": {"lastID": "1"}}
    assert parse(newer).spec.database.embedded is not None
    assert parse(newer).status.version == "4.0.0"


def test_names_are_those_of_the_wire_only() -> None:
    """A field in snake case is an unknown field, as it is for the API server."""
    assert parse(resource({"job_execution": "Enabled"})).spec.job_execution == "Disabled"


def test_a_refusal_repeats_no_password() -> None:
    """People paste a whole URI where a host belongs; logs and conditions must not spread it."""
    spec = {
        "database": {
            "external": {"host": "postgresql://me:hunter2@db", "credentialsSecretRef": {"name": "x"}}
        }
    }
    with pytest.raises(InvalidResource) as refused:
        parse(resource(spec))
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_every_fault_is_named_at_once() -> None:
    """Nobody should have to come back for the second mistake."""
    with pytest.raises(InvalidResource) as refused:
        parse(resource({"version": "latest", "replicas": "two"}))
    assert "spec.version: 'latest' is no version" in str(refused.value)
    assert "spec.replicas: " in str(refused.value)


def test_exact_spelling_of_acronyms_on_the_wire() -> None:
    """camelCase by rule would make accessKeyIdKey of it."""
    credentials = {"name": "x", "accessKeyIDKey": "id", "secretAccessKeyKey": "secret"}
    found = parse(resource({"artifacts": {"s3": {"bucket": "abc", "credentialsSecretRef": credentials}}}))
    assert found.spec.artifacts.s3 is not None
    assert found.spec.artifacts.s3.manifest()["credentialsSecretRef"] == credentials


def test_a_volume_keeps_what_only_kubernetes_knows() -> None:
    """Volumes are passed through: their kinds are not repeated here."""
    volume = {"name": "ca", "configMap": {"name": "ca", "defaultMode": 292}}
    found = parse(resource({"podTemplate": {"spec": {"volumes": [volume]}}}))
    assert found.spec.pod_template.spec.volumes[0].manifest() == volume


def test_a_model_cannot_be_changed() -> None:
    """What was read is a fact; whoever wants another makes another."""
    server: MLflowServer = parse(resource({}))
    with pytest.raises(ValueError, match="frozen"):
        server.spec.replicas = 2  # type: ignore[misc]
