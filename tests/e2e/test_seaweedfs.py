"""SeaweedFS as the embedded store: one pod, one volume, the same guarantees as MinIO."""

import pytest
from kubernetes.dynamic.exceptions import UnprocessibleEntityError

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.load import SteadyLoad
from tests.e2e.mlflow_workload import MIB, Workload
from tests.e2e.server import SMALL_RESOURCES, Server, small_spec

CONNECT_WITHOUT_CERTIFICATE = """
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
with context.wrap_socket(socket.create_connection((sys.argv[1], 19000), 10)) as connection:
    try:
        print("accepted", connection.recv(1))
    except ssl.SSLError as error:
        print(error.reason)
"""
"""With TLS 1.3, the server rejects a missing client certificate after the handshake. It accepts with its settings."""


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs SeaweedFS' image; tests/contracts/test_seaweedfs.py tests its keys, test_embedded the same of MinIO"
)
def test_embedded_seaweedfs_data_survives_pod_kill(ns: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run, files and a registered model survive the deletion of the pod without a grace period, and so does the
    server's key, which is then rotated without a failed request."""
    embedded = {"engine": "SeaweedFS", "resources": SMALL_RESOURCES, "storage": {"size": "2Gi"}}
    server = Server(ns).apply(small_spec(artifacts={"embedded": embedded})).wait_ready()
    workload = Workload(server.url)
    data, run = workload.log_data(), workload.create_run()
    large_checksum = workload.upload(run, "large.bin", 100 * MIB)

    old = server.pod("artifact-store")
    assert old["spec"]["containers"][0]["image"] == ns.settings.pins["IMAGE_SEAWEEDFS"]
    # everyone who reaches the gRPC port without a certificate could create an access key
    client, address = server.pod("server")["metadata"]["name"], old["status"]["podIP"]
    program = ["python", "-c", CONNECT_WITHOUT_CERTIFICATE, address]
    assert "CERTIFICATE_REQUIRED" in ns.kubectl("exec", client, "-c", "mlflow", "--", *program)
    ns.delete("Pod", old["metadata"]["name"], grace_seconds=0)
    server.wait_replaced("artifact-store", old)
    server.wait_ready(timeouts.ROLLOUT_SECONDS)
    workload.check_data(data)
    assert workload.download(run, "large.bin") == large_checksum
    workload.check_data(workload.log_data("after"))

    old_key = server.generated_values()
    with SteadyLoad(server.url, monkeypatch) as steady_load:
        server.rotate_credentials()
    assert steady_load.errors == []
    # the old key is not tried, because SeaweedFS writes the ids of unknown keys to its log
    assert server.generated_values()["artifact key"] != old_key["artifact key"]
    assert server.generated_values()["root key"] == old_key["root key"]
    workload.check_data(data)

    with pytest.raises(UnprocessibleEntityError, match="engine must not change"):
        server.patch_spec(artifacts={"embedded": {"engine": "MinIO"}})
