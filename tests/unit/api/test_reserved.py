"""What owners may not name is what the operator names: the two lists can't drift apart."""

import pytest

from mlflow_operator.api import parse
from mlflow_operator.api.env import RESERVED_ENV
from mlflow_operator.api.pods import RESERVED_MOUNTS, RESERVED_VOLUMES
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import deployment
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from tests.unit.api.refusals import ACCEPTED, Spec, external, s3

CA = {"caSecretRef": {"name": "ca"}}
EVERYTHING = external(tls={"mode": "VerifyFull", **CA}) | s3(
    endpoint="https://a:9000", credentialsSecretRef={"name": "key"}, tls=CA
)
PUBLIC = s3(access="Presigned", publicEndpoint="https://b:9000")
SPECS = {case.promise: case.spec for case in ACCEPTED if not {"env", "volumeMounts"} & case.spec.keys()}


def pod(spec: Spec) -> Object:
    """The server's pod."""
    written = {"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": spec}
    server = resolve(parse(written), ClusterDefaults(Images()))
    found: Object = deployment.deployment(server, "")["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("spec", [*SPECS.values(), EVERYTHING, PUBLIC], ids=[*SPECS, "everything", "public"])
def test_what_the_operator_sets_is_reserved(spec: Spec) -> None:
    """A variable, volume or mount of the owner's would silently lose, or the pod be refused."""
    made = pod(spec)
    container = made["containers"][0]
    assert {variable["name"] for variable in container["env"]} <= RESERVED_ENV.keys()
    assert {volume["name"] for volume in made["volumes"]} <= set(RESERVED_VOLUMES)
    assert all(mount["mountPath"].startswith(RESERVED_MOUNTS) for mount in container["volumeMounts"])


def test_every_reserved_volume_exists() -> None:
    """No name is taken from owners for nothing."""
    assert {volume["name"] for volume in pod(EVERYTHING)["volumes"]} == set(RESERVED_VOLUMES)
