"""`mlflow-operator doctor` checks the platforms, and that servers can use those that they use."""

from collections.abc import Callable

import pytest

from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION
from mlflow_operator.kube.objects import Object
from tests.unit.api import platform_refusals as specs
from tests.unit.doctor.doctor_command import CLUSTER, OPERATOR, SERVER, Doctor
from tests.unit.doctor.recorded_api_server import (
    RecordedAPIServer,
    condition,
    deployment,
    platform,
    server,
    uses_platform,
)

PLATFORM = "platform shared"
Change = Callable[[RecordedAPIServer], object]


@pytest.fixture(autouse=True)
def server_on_platform(api: RecordedAPIServer) -> None:
    """A ready server on a ready platform."""
    api.platforms = [platform()]
    api.servers = [uses_platform()]


def platforms(*resources: Object) -> Change:
    """Replace the platforms."""
    return lambda api: setattr(api, "platforms", [*resources])


def edit_metadata(**fields: object) -> Change:
    """Change the metadata of the platform."""
    return lambda api: api.platforms and api.platforms[0]["metadata"].update(fields)


def deny_secrets_of_platforms(api: RecordedAPIServer) -> None:
    """An operator that watches one namespace may read no Secret."""
    api.deployments = [deployment(1, 1, "0.1.0", "--namespace=team-a")]
    api.denied.add(("secrets", "get"))


def test_healthy_platform_has_exit_code_0(doctor: Doctor) -> None:
    """Every check is listed, with the locations of the stores."""
    findings = doctor.findings()
    assert {finding["state"] for finding in findings.values()} == {"ok"}
    checks = {
        check: finding["message"] for (subject, check), finding in findings.items() if subject == PLATFORM
    }
    assert {*checks} == {"DatabaseReady", "ArtifactStoreReady", "Ready", "TLS"}
    assert checks["DatabaseReady"] == "postgres.mlflow-platform.svc:5432"
    assert checks["ArtifactStoreReady"] == "s3://mlflow at https://minio.mlflow-platform.svc:9000"
    assert findings[SERVER, "platform"]["message"] == "shared (database and artifact store)"
    assert not [line for line in doctor.api.requests if "/secrets" in line]


def test_cluster_without_platforms_is_not_asked_for_namespaces(doctor: Doctor) -> None:
    """No namespace needs to be selected by a platform."""
    doctor.api.platforms, doctor.api.servers = [], [server()]
    doctor.findings()
    assert not [line for line in doctor.api.requests if line.endswith("/namespaces")]


CASES: dict[str, tuple[Change, tuple[str, str], str, str]] = {
    "store that is not reachable": (
        platforms(
            platform(
                condition("DatabaseReady", "False", "DatabaseUnreachable", "Check the host."),
                condition("Ready", "False", "DatabaseUnreachable", "Check the host."),
            )
        ),
        (PLATFORM, "DatabaseReady"),
        "DatabaseUnreachable",
        "Check the host.",
    ),
    "invalid platform": (
        platforms(
            platform(
                condition("Ready", "False", "InvalidResource", "spec.database is wrong."),
                spec=specs.platform(database={}),
            )
        ),
        (PLATFORM, "Ready"),
        "InvalidResource",
        "spec.database is wrong.",
    ),
    "platform that no operator has reconciled": (
        lambda api: api.platforms and api.platforms[0].pop("status"),
        (PLATFORM, "status"),
        "No operator has reconciled this platform.",
        "the operator above",
    ),
    "two default platforms": (
        platforms(platform(), platform(name="other")),
        (PLATFORM, "default platform"),
        'The default platforms "shared" and "other" share namespace team-a',
        f"kubectl annotate mlflowplatform shared {DEFAULT_ANNOTATION}-",
    ),
    "platform that does not exist": (
        platforms(),
        (SERVER, "platform"),
        'MLflowPlatform "shared", which the server uses, does not exist.',
        "create it again",
    ),
    "platform that is invalid": (
        platforms(platform(spec=specs.platform(database={}))),
        (SERVER, "platform"),
        'MLflowPlatform "shared", which the server uses, is invalid.',
        "See the condition Ready",
    ),
    "platform that no longer selects the namespace": (
        lambda api: api.namespaces.update({"team-a": {}}),
        (SERVER, "platform"),
        'MLflowPlatform "shared" no longer selects namespace team-a.',
        "spec.namespaceSelector",
    ),
    "platform without a store of the server": (
        platforms(platform(spec=specs.without("artifacts"))),
        (SERVER, "platform"),
        'MLflowPlatform "shared" no longer offers the artifact store that the server uses.',
        "restore it",
    ),
    "Secrets that a namespaced operator may not read": (
        deny_secrets_of_platforms,
        (OPERATOR, "permissions"),
        "secrets ca (get) in mlflow-platform; secrets minio-admin (get) in mlflow-platform; secrets postgres-admin",
        "Add the Secrets of platforms to platformSecrets",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_problems_are_reported_with_a_next_step(doctor: Doctor, case: str) -> None:
    change, key, expected, next_step = CASES[case]
    change(doctor.api)
    doctor.assert_reports(key, expected, next_step)


def test_secrets_of_platforms_are_only_required_by_operators_that_need_them(doctor: Doctor) -> None:
    """Not if the operator watches all namespaces, or none that the platform selects."""
    doctor.api.namespaces["team-b"] = {}
    for arguments in ((), ("--namespace=team-b",)):
        doctor.api.deployments = [deployment(1, 1, "0.1.0", *arguments)]
        doctor()
    assert doctor.api.reviewed
    assert not [review for review in doctor.api.reviewed if review["name"] == "postgres-admin"]


def test_a_conflict_that_the_platform_reports_is_not_repeated(doctor: Doctor) -> None:
    conflict = condition("Ready", "False", "DefaultPlatformConflict", "Narrow a selector.")
    doctor.api.platforms = [platform(conflict), platform(conflict, name="other")]
    findings = doctor.findings(code=1)
    assert findings[PLATFORM, "Ready"]["nextStep"] == "Narrow a selector."
    assert (PLATFORM, "default platform") not in findings


@pytest.mark.parametrize(
    "other",
    [
        platform(name="other", is_default=False),
        platform(name="other", spec=specs.platform(namespaceSelector={"matchLabels": {"a": "b"}})),
    ],
    ids=["no default", "other namespaces"],
)
def test_several_platforms_are_no_conflict(doctor: Doctor, other: Object) -> None:
    doctor.api.platforms = [platform(), other]
    doctor.findings()


def test_a_platform_that_is_being_deleted_is_pending_and_is_no_default(doctor: Doctor) -> None:
    doctor.api.platforms = [platform(), platform(name="other")]
    edit_metadata(deletionTimestamp="2026-11-21T11:59:00Z")(doctor.api)
    findings = doctor.findings(code=1)
    assert findings[PLATFORM, "deletion"]["state"] == "pending"
    assert ("platform other", "default platform") not in findings


@pytest.mark.parametrize(
    ("spec", "message", "next_step"),
    [
        (specs.postgres(tls={"mode": "Prefer"}), "may be unencrypted", "spec.database.postgres.tls.mode"),
        (specs.postgres(tls={"mode": "Require"}), "is not verified", "VerifyFull"),
        (specs.s3(endpoint="http://minio.mlflow-platform.svc:9000"), "artifact store", "https://"),
    ],
    ids=["unencrypted", "unverified", "HTTP"],
)
def test_unverified_tls_is_a_note(doctor: Doctor, spec: Object, message: str, next_step: str) -> None:
    """It may be intended, so that the exit code is 0."""
    doctor.api.platforms = [platform(spec=spec)]
    finding = doctor.findings()[PLATFORM, "TLS"]
    assert finding["state"] == "note"
    assert message in finding["message"]
    assert next_step in finding["nextStep"]


def test_used_adoptions_are_a_note(doctor: Doctor) -> None:
    """They can be removed. Unused entries, and those that are removed already, are not named."""
    doctor.api.platforms = [
        adopting(["team-a/tracking", "team-b/new"], ["team-a/tracking", "team-c/removed"])
    ]
    finding = doctor.findings()[PLATFORM, "adoptions"]
    assert finding["state"] == "note"
    assert finding["message"] == "Servers have used these entries of spec.adoptions: team-a/tracking."
    assert "remove the entries" in finding["nextStep"]


def test_unused_adoptions_are_not_reported(doctor: Doctor) -> None:
    doctor.api.platforms = [adopting(["team-b/new"], ["team-c/removed"])]
    assert (PLATFORM, "adoptions") not in doctor.findings()


def test_note_names_some_of_many_used_adoptions(doctor: Doctor) -> None:
    names = [f"team-{number:02}/tracking" for number in range(12)]
    doctor.api.platforms = [adopting(names, names)]
    message = doctor.findings()[PLATFORM, "adoptions"]["message"]
    assert "team-09/tracking and 2 more." in message
    assert "team-10" not in message


def adopting(listed: list[str], used: list[str]) -> Object:
    """A platform that lists these servers in `spec.adoptions`, and those in `status.adoptions`."""
    resource = platform(spec=specs.platform(adoptions=listed))
    resource["status"]["adoptions"] = [{"server": name, "namespaceUID": "uid"} for name in used]
    return resource


@pytest.mark.parametrize(
    ("args", "checked"),
    [
        ((), {"shared", "other", "elsewhere"}),
        (("-n", "team-a"), {"shared", "other"}),
        (("-n", "team-a", "tracking"), {"shared"}),
    ],
    ids=["all", "namespace", "server"],
)
def test_only_platforms_of_the_checked_servers_and_namespaces_are_checked(
    doctor: Doctor, args: tuple[str, ...], checked: set[str]
) -> None:
    """So is an operator's own doctor, whose `-n` is the namespaces that it watches: it ignores other platforms."""
    elsewhere = specs.platform(namespaceSelector={"matchLabels": {"a": "b"}})
    others = platform(name="other", is_default=False), platform(name="elsewhere", spec=elsewhere)
    doctor.api.platforms = [platform(), *others]
    findings = doctor.findings(*args)
    assert {
        name for subject, _ in findings for kind, _, name in [subject.partition(" ")] if kind == "platform"
    } == checked


def test_platforms_that_a_namespaced_operator_ignores_are_not_checked(doctor: Doctor) -> None:
    """Another operator may reconcile them."""
    ignored = platform(name="ignored", spec=specs.platform(namespaceSelector={"matchLabels": {"a": "b"}}))
    del ignored["status"]
    assert doctor.api.platforms is not None
    doctor.api.platforms.append(ignored)
    doctor.api.deployments = [deployment(1, 1, "0.1.0", "--namespace=team-a")]
    assert "platform ignored" not in {subject for subject, _ in doctor.findings()}


def test_namespaces_are_read_one_by_one_without_permission_to_list_them(doctor: Doctor) -> None:
    """As with an operator that watches selected namespaces. Without any permission, the result is unknown."""
    doctor.api.forbidden = {"namespaces list"}
    assert doctor.findings()[SERVER, "platform"]["state"] == "ok"
    doctor.api.namespaces["team-a"] = {}
    assert doctor.findings(code=1)[SERVER, "platform"]["state"] == "failed"
    doctor.api.forbidden = {"namespaces"}
    finding = doctor.findings()[SERVER, "platform"]
    assert finding["state"] == "unknown"
    assert "not allowed to get it" in finding["message"]


def test_platforms_without_permission_are_unknown_once(doctor: Doctor) -> None:
    doctor.api.forbidden = {"mlflowplatforms"}
    findings = doctor.findings()
    assert [key for key, finding in findings.items() if finding["state"] == "unknown"] == [
        (CLUSTER, "platforms")
    ]
    assert "not allowed to list mlflowplatforms" in findings[CLUSTER, "platforms"]["message"]
