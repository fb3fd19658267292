"""The names of a server's objects match its manifests."""

import pytest

from mlflow_operator import render
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import owned_objects
from tests.unit.servers import server

GENERATED = render.GeneratedValues("user", "p", "a" * 20, "s" * 40, "r", "e")
EXTERNAL: Object = {"external": {"uriSecretRef": {"name": "db"}}}
S3: Object = {"bucket": "models", "credentialsSecretRef": {"name": "keys"}}
SPECS: dict[str, Object] = {
    "embedded": {},
    "all objects": {
        "replicas": 2,
        "backup": {},
        "garbageCollection": {"schedule": "0 4 * * 0", "olderThan": "720h"},
    },
    "external": {"database": EXTERNAL, "artifacts": {"s3": S3}},
    "direct access": {"database": EXTERNAL, "artifacts": {"access": "Direct", "s3": S3}},
    "authentication": {"auth": {"basic": {}}},
    "password of the user": {"auth": {"admin": {"passwordSecretRef": {"name": "own"}}}},
    "shared stores": {
        "database": {"provision": {"host": "shared", "adminSecretRef": {"name": "admin"}}},
        "artifacts": {
            "s3": {"bucket": "models", "endpoint": "http://s3", "adminSecretRef": {"name": "admin"}}
        },
    },
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_names_are_those_of_the_manifests(spec: Object) -> None:
    """Otherwise a message about conflicts would not name all of them."""
    resolved = server(spec)
    manifests = [*render.objects(resolved), *render.secrets(resolved, GENERATED)]
    rendered = {(kinds.of(obj), obj["metadata"]["name"]) for obj in manifests if obj["kind"] != "Job"}
    disposable, data = owned_objects.disposable(resolved), owned_objects.data(resolved)
    assert {*disposable, *data} == rendered
    assert len(disposable) + len(data) == len(rendered)
    assert {*disposable} <= {*owned_objects.all_disposable(resolved.names)}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_only_disposable_objects_have_the_tracking_label_of_argo_cd(spec: Object) -> None:
    """An Application with the name of the server would delete the data, because Git does not contain it.

    The labels of data are listed completely: any other one could be the mark of another tool.
    """
    resolved = server(spec)
    data = {*owned_objects.data(resolved)}
    for obj in [*render.objects(resolved), *render.secrets(resolved, GENERATED)]:
        meta = obj["metadata"]
        if (kinds.of(obj), meta["name"]) in data:
            component = meta["labels"][labels.COMPONENT]
            assert meta == {
                "name": meta["name"],
                "namespace": "team",
                "labels": {
                    "app.kubernetes.io/name": "mlflow",
                    "app.kubernetes.io/component": component,
                    "app.kubernetes.io/managed-by": "mlflow-operator",
                    "mlflow-operator.dev/server": "a",
                },
            }
        else:
            assert meta["labels"][labels.INSTANCE] == "a"
