"""What accounts may do: users who may only write MLflowServers, and the operator's own account if its token is stolen.

Exploits H2 and M1 of the security review. tests/unit/api tests more values of specs, and
tests/apiserver/test_admission_policy.py all kinds of objects.
"""

import json

import pytest

from tests.e2e import operator_release, timeouts
from tests.e2e.external_stores import secret
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.tenants import UNUSED_SECRET, WRITE_SERVERS, Tenancy, Tenant

GROUP = "tenant_permissions"

OPERATOR = f"system:serviceaccount:{operator_release.NAMESPACE}:{operator_release.RELEASE}"
POLICY = f"ValidatingAdmissionPolicy '{operator_release.NAMESPACE}.{operator_release.RELEASE}'"


def token_volume(**token: str) -> Object:
    """Return a volume with a token of the pod's service account."""
    return {
        "name": "escalation",
        "projected": {"sources": [{"serviceAccountToken": {"path": "token", **token}}]},
    }


REFUSED: dict[str, Object] = {
    "host-path": {"volumes": [{"name": "escalation", "hostPath": {"path": "/"}}]},
    "nfs": {"volumes": [{"name": "escalation", "nfs": {"server": "10.0.0.1", "path": "/"}}]},
    "token": {"volumes": [token_volume()]},
    "token-of-api": {"volumes": [token_volume(audience="https://kubernetes.default.svc.cluster.local")]},
    "root": {"securityContext": {"runAsNonRoot": False}},
    "root-user": {"securityContext": {"runAsUser": 0}},
    "unconfined": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
}
"""Parts of pod specs that give a pod more than MLflow needs, and that the API server refuses."""

UNKNOWN: dict[str, Object] = {
    "sysctls": {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
    "privileged": {"securityContext": {"privileged": True}},
    "host-network": {"hostNetwork": True},
    "host-pid": {"hostPID": True},
    "containers": {"containers": [{"name": "escalation", "image": "busybox"}]},
    "init-containers": {"initContainers": [{"name": "escalation", "image": "busybox"}]},
}
"""Others that no field of the API contains. The API server does not store them."""


@pytest.fixture(scope="module")
def carol(_tenancy: Tenancy) -> Tenant:
    """A user who may write MLflowServers, and nothing else."""
    _tenancy.offer(is_default=True)
    return _tenancy.create_tenant("carol", WRITE_SERVERS)


def test_servers_cannot_weaken_their_pods(carol: Tenant) -> None:
    """With a client that does not reject unknown fields."""
    for name, pod_spec in REFUSED.items():
        assert not carol.try_server(name, podTemplate={"spec": pod_spec}), name
    # Otherwise the refused tokens would prove nothing.
    cloud_token: Object = {"volumes": [token_volume(audience="sts.amazonaws.com")]}
    assert carol.try_server("cloud-token", suspend=True, podTemplate={"spec": cloud_token})
    for name, pod_spec in UNKNOWN.items():
        server = carol.try_server(name, suspend=True, podTemplate={"spec": pod_spec})
        assert server is not None
        stored = server.resource()["spec"]["podTemplate"]["spec"]
        assert stored in ({}, {"securityContext": {}}), name


def test_platform_policy_decides_about_service_accounts(tenancy: Tenancy, carol: Tenant) -> None:
    """A pod with the ServiceAccount of the CI could otherwise use its permissions."""
    tenancy.offer(is_default=True, policy={"serviceAccountNames": ["mlflow-team"]})
    foreign = carol.server("ci", podTemplate={"spec": {"serviceAccountName": "ci-deployer"}})
    condition = foreign.wait_for("Ready", "False", "PolicyViolation", within=timeouts.STATUS_SECONDS)
    assert "ci-deployer" in condition["message"]
    assert "spec.podTemplate.spec.serviceAccountName" in condition["message"]
    assert tenancy.name in condition["message"]
    assert not tenancy.kube.in_namespace(carol.namespace).get("Deployment", foreign.names.deployment)


def test_users_who_write_servers_get_no_other_permission(carol: Tenant) -> None:
    """They can read neither the Secrets nor the pods that the operator creates for them."""
    for arguments in (
        ("get", "secrets"),
        ("get", "pods"),
        ("create", "configmap", "a"),
        ("patch", "mlflowserver", "any", "--subresource=status", "--type=merge", "-p", '{"status": {}}'),
    ):
        with pytest.raises(CommandError, match="forbidden"):
            carol.kube.kubectl(*arguments)


@pytest.fixture
def stolen(carol: Tenant, tenancy: Tenancy) -> Kube:
    """A client with the permissions of the operator's account, in the namespace of the tenant."""
    return tenancy.kube.in_namespace(carol.namespace).as_user(OPERATOR)


def test_account_of_the_operator_cannot_enumerate_secrets_or_run_pods(stolen: Kube) -> None:
    """Anyone who steals its token has these limits."""
    for arguments in (
        ("get", "secrets"),
        ("get", "secrets", "--all-namespaces"),
        ("get", "secrets", "--watch-only"),
        ("run", "escalation", "--image=busybox"),
        ("create", "serviceaccount", "escalation"),
        ("create", "token", "default"),
        ("create", "rolebinding", "escalation", "--clusterrole=admin", "--user=mallory"),
        ("create", "clusterrolebinding", "escalation", "--clusterrole=cluster-admin", "--user=mallory"),
    ):
        with pytest.raises(CommandError, match="forbidden"):
            stolen.kubectl(*arguments)


def test_account_of_the_operator_writes_only_objects_of_servers(
    stolen: Kube, carol: Tenant, tenancy: Tenancy
) -> None:
    """It cannot take over others by adding the labels."""
    with pytest.raises(CommandError, match="mlflow-operator"):
        stolen.apply(secret("unlabelled", a="b"))
    takeover = {
        "metadata": {
            "labels": {
                "app.kubernetes.io/managed-by": "mlflow-operator",
                "mlflow-operator.dev/server": "tracking",
            }
        }
    }
    admin = tenancy.kube.in_namespace(carol.namespace)
    before = admin.require("Secret", UNUSED_SECRET)
    for arguments in (
        ("create", "configmap", "unlabelled"),
        ("patch", "secret", UNUSED_SECRET, "-p", json.dumps(takeover)),
        ("patch", "secret", UNUSED_SECRET, "-p", '{"stringData": {"password": "changed"}}'),
        ("delete", "secret", UNUSED_SECRET),
        ("create", "deployment", "escalation", "--image=busybox"),
    ):
        with pytest.raises(CommandError) as denied:
            stolen.kubectl(*arguments)
        assert POLICY in str(denied.value), denied.value
    assert admin.require("Secret", UNUSED_SECRET) == before
    assert not admin.get("Secret", "unlabelled")
