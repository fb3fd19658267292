"""The MLflowPlatforms: their status, their TLS settings, used entries of `spec.adoptions`, and whether several are the
default of a namespace.
"""

from collections.abc import Iterator

from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION
from mlflow_operator.doctor.checks.conditions import check_condition, check_reconciliation
from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.observed import ObservedCluster, ObservedPlatform
from mlflow_operator.model.platform import ARTIFACTS_FIELD, DATABASE_FIELD, Platform, defaults_for
from mlflow_operator.status.conditions import ConditionType, Reason

_DATABASE_RISKS = {
    DatabaseTLSMode.DISABLE: "Connections to PostgreSQL are not encrypted: others in the network can read them.",
    DatabaseTLSMode.PREFER: "Connections to PostgreSQL may be unencrypted: others in the network may read them.",
    DatabaseTLSMode.REQUIRE: "The certificate of PostgreSQL is not verified: another service can act as the database.",
    DatabaseTLSMode.VERIFY_CA: (
        "The host in the certificate of PostgreSQL is not verified: a service with another certificate of the CA can "
        "act as the database."
    ),
}

_MAX_NAMED_ADOPTIONS = 10


def check(cluster: ObservedCluster) -> Iterator[Finding]:
    """Findings for each platform that concerns the checked namespaces and servers."""
    observed = cluster.platforms
    if isinstance(observed.resources, Unobserved):
        yield Finding(
            "cluster",
            "platforms",
            State.UNKNOWN,
            f"Not checked: {observed.resources.reason}",
            "Use an account that is allowed to list mlflowplatforms, or run doctor in the operator's pod.",
        )
        return
    for platform in observed.resources:
        if platform.name in observed.checked:
            yield from _check_platform(platform, cluster)


def _check_platform(platform: ObservedPlatform, cluster: ObservedCluster) -> Iterator[Finding]:
    if platform.is_deleted:
        yield Finding(
            platform.subject,
            "deletion",
            State.PENDING,
            "The platform is being deleted, and new servers cannot use it.",
            "If the deletion does not end, the condition Ready contains the servers that use the platform.",
        )
    yield from check_reconciliation(platform.subject, platform.resource, "platform", cluster.now)
    conditions = (platform.resource.get("status") or {}).get("conditions") or []
    for condition in conditions:
        detail = _detail(str(condition.get("type")), platform.resolved)
        yield check_condition(platform.subject, condition, conditions, detail)
    if platform.resolved is None:
        return
    if not any(condition.get("reason") == Reason.DEFAULT_PLATFORM_CONFLICT for condition in conditions):
        yield from _check_default(platform, platform.resolved, cluster)
    yield _check_tls(platform.subject, platform.resolved)
    yield from _check_adoptions(platform, platform.resolved)


def _check_adoptions(platform: ObservedPlatform, resolved: Platform) -> Iterator[Finding]:
    """Entries that count for no other namespace any more: who reads the spec takes them for permissions."""
    recorded = (platform.resource.get("status") or {}).get("adoptions") or ()
    used = sorted({str(entry.get("server")) for entry in recorded} & resolved.adoptions)
    if not used:
        return
    more = f" and {len(used) - _MAX_NAMED_ADOPTIONS} more" if len(used) > _MAX_NAMED_ADOPTIONS else ""
    yield Finding(
        platform.subject,
        "adoptions",
        State.NOTE,
        f"Servers have used these entries of spec.adoptions: {', '.join(used[:_MAX_NAMED_ADOPTIONS])}{more}.",
        "When the servers are Ready, remove the entries. They are not needed any more.",
    )


def _detail(condition_type: str, platform: Platform | None) -> str:
    """Fields of the spec that belong to a condition with status True; empty if there are none."""
    match condition_type:
        case ConditionType.DATABASE if platform and platform.database:
            return f"{platform.database.host}:{platform.database.port}"
        case ConditionType.ARTIFACT_STORE if platform and platform.artifacts:
            return f"s3://{platform.artifacts.bucket} at {platform.artifacts.endpoint}"
        case _:
            return ""


def _check_default(
    platform: ObservedPlatform, resolved: Platform, cluster: ObservedCluster
) -> Iterator[Finding]:
    """A conflict that no operator has reported: one that watches selected namespaces does not know the others."""
    resources = cluster.platforms.resources
    if isinstance(resources, Unobserved):
        return
    platforms = [other.resolved for other in resources if other.resolved and not other.is_deleted]
    for namespace, labels in sorted(cluster.platforms.namespaces.items()):
        defaults = defaults_for(platforms, labels)
        others = sorted(default.name for default in defaults if default is not resolved)
        if resolved in defaults and others:
            yield Finding(
                platform.subject,
                "default platform",
                State.FAILED,
                f'The default platforms "{resolved.name}" and "{others[0]}" share namespace {namespace}, so none of '
                "them is the default there: new servers wait.",
                "Narrow a spec.namespaceSelector, or remove the annotation from one of them: kubectl annotate "
                f"mlflowplatform {resolved.name} {DEFAULT_ANNOTATION}-",
            )
            return


def _check_tls(subject: str, platform: Platform) -> Finding:
    risks, steps = [], []
    if platform.database and platform.database.tls in _DATABASE_RISKS:
        risks.append(_DATABASE_RISKS[platform.database.tls])
        steps.append(f"Set {DATABASE_FIELD}.tls.mode to VerifyFull.")
    if platform.artifacts and platform.artifacts.endpoint.startswith("http://"):
        risks.append(
            "Connections to the artifact store are not encrypted: others in the network can read all artifacts."
        )
        steps.append(f"Set {ARTIFACTS_FIELD}.endpoint to a URL with https://.")
    if risks:
        return Finding(subject, "TLS", State.NOTE, " ".join(risks), " ".join(steps))
    return Finding(subject, "TLS", State.OK, "the certificates of all stores are verified")
