"""SeaweedFS as the embedded store: one pod, one volume, the same promises as MinIO."""

import pytest
from kubernetes.dynamic.exceptions import UnprocessibleEntityError

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.load import Steady
from tests.e2e.mlflow_workload import MIB, Scientist
from tests.e2e.server import LITTLE, Server, small


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs SeaweedFS' image; tests/contracts/test_seaweedfs.py tests its keys, test_embedded the same of MinIO"
)
def test_data_outlives_the_pod_of_an_embedded_seaweedfs(ns: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run, files and a registered model; the pod is killed without a grace, and all of it is back. So is the server's
    own key, which is then replaced without a failed request."""
    embedded = {"engine": "SeaweedFS", "resources": LITTLE, "storage": {"size": "2Gi"}}
    server = Server(ns).apply(small(artifacts={"embedded": embedded})).ready()
    scientist = Scientist(server.url)
    work, run = scientist.work(), scientist.run()
    large = scientist.upload(run, "large.bin", 100 * MIB)

    old = server.pod("artifact-store")
    assert old["spec"]["containers"][0]["image"] == ns.settings.pins["IMAGE_SEAWEEDFS"]
    ns.delete("Pod", old["metadata"]["name"], grace=0)
    server.replaced("artifact-store", old)
    server.ready(timeouts.ROLLED)
    scientist.finds(work)
    assert scientist.download(run, "large.bin") == large
    scientist.finds(scientist.work("after"))

    old_key = server.generated()
    with Steady(server.url, monkeypatch) as clients:
        server.rotate()
    assert clients.errors == []
    # not tried with the old one: it writes the ids of keys that it does not know into its log
    assert server.generated()["artifact key"] != old_key["artifact key"]
    assert server.generated()["root key"] == old_key["root key"]
    scientist.finds(work)

    with pytest.raises(UnprocessibleEntityError, match="engine changed"):
        server.change(artifacts={"embedded": {"engine": "MinIO"}})
