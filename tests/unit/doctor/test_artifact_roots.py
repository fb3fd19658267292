"""Findings about the artifacts of runs and the last garbage collection."""

from dataclasses import replace
from datetime import UTC, datetime

from mlflow_operator.doctor.checks import artifact_roots, garbage_collection
from mlflow_operator.doctor.finding import Finding, State
from mlflow_operator.doctor.observed import (
    ArtifactRoots,
    ExperimentLocation,
    ProbeResult,
    Server,
    UnreadableArtifacts,
)
from mlflow_operator.kube.objects import Object
from tests.unit.doctor.recorded_api_server import server

READABLE = ArtifactRoots(20, (), ())
NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)


def findings(roots: ArtifactRoots | None) -> dict[str, Finding]:
    """Findings by check, for a server with the store s3://models/team."""
    resource = server(artifacts={"type": "S3", "uri": "s3://models/team"})
    probed = Server(resource, in_cluster=ProbeResult(200, artifact_roots=roots))
    return {finding.check: finding for finding in artifact_roots.check(probed)}


def test_readable_artifacts_pass() -> None:
    """The message contains the number of checked and unchecked experiments. Without runs there is no finding."""
    assert findings(None) == {}
    (finding,) = findings(READABLE).values()
    assert (finding.check, finding.state) == ("run artifacts", State.OK)
    assert finding.message == "can be listed for the latest runs of 20 experiments"
    (finding,) = findings(replace(READABLE, checked=1, unchecked=7)).values()
    assert (
        "the latest run of one experiment (7 more experiments could not be checked in time)"
        in finding.message
    )


def test_unreadable_artifacts_fail() -> None:
    """The message contains the runs, their locations and the errors."""
    unreadable = tuple(
        UnreadableArtifacts(f"r{n}", f"s3://models/team/1/r{n}", "status 500") for n in range(5)
    )
    finding = findings(replace(READABLE, unreadable=unreadable))["run artifacts"]
    assert finding.state is State.FAILED
    assert "the artifacts of 5 cannot be listed: r0 (s3://models/team/1/r0): status 500" in finding.message
    assert finding.message.endswith("and 2 more.")
    assert "kubectl logs -n team-a deploy/tracking" in finding.next_step


def test_experiments_in_another_store_are_reported() -> None:
    """Those in the server's own store are not, even if not proxied. A bucket with the same prefix is another store."""
    locations = {"1": "s3://models/team/1", "2": "s3://models/team-b/2", "3": "gs://old/3"}
    not_proxied = tuple(ExperimentLocation(id_, location) for id_, location in locations.items())
    finding = findings(replace(READABLE, not_proxied=not_proxied))["other artifact stores"]
    assert finding.state is State.NOTE
    assert "2 (s3://models/team-b/2), 3 (gs://old/3)." in finding.message


def garbage_findings(spec: Object | None, **status: object) -> list[Finding]:
    """Findings for a server with this garbage collection."""
    resource = server(garbageCollection=status)
    resource["spec"] = {} if spec is None else {"garbageCollection": spec}
    return [*garbage_collection.check("server team-a/tracking", resource, NOW)]


def test_last_garbage_collection_is_reported() -> None:
    """Its age and what it deleted. Without spec.garbageCollection there is no finding."""
    assert garbage_findings(None, lastRunTime="2026-11-22T03:00:00Z") == []
    (none,) = garbage_findings({})
    assert (none.state, "has not succeeded yet" in none.message) == (State.OK, True)
    (last,) = garbage_findings(
        {}, lastRunTime="2026-11-22T03:00:00Z", mode="Delete", deletedRuns=12, deletedTraces=1
    )
    assert last.message == "last run 2 days ago, removed 12 runs, 0 models, 0 experiments, 1 trace"
    (dry,) = garbage_findings({}, lastRunTime="2026-11-22T03:00:00Z", mode="DryRun")
    assert dry.message.endswith("(dry run)")
