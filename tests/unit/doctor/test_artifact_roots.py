"""What doctor thinks of where artifacts lie, and of the last clean-up."""

from dataclasses import replace
from datetime import UTC, datetime

from mlflow_operator.doctor.checks import artifact_roots, garbage
from mlflow_operator.doctor.finding import Finding, State
from mlflow_operator.doctor.seen import Elsewhere, LostRoot, ProbeResult, Roots, Server
from mlflow_operator.kube.objects import Object
from tests.unit.doctor.recorded_api_server import server

WELL = Roots(20, (), ())
NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)


def findings(roots: Roots | None) -> dict[str, Finding]:
    """Of a server whose store is s3://models/team, by check."""
    resource = server(artifacts={"type": "S3", "uri": "s3://models/team"})
    asked = Server(resource, inside=ProbeResult(200, roots=roots))
    return {one.check: one for one in artifact_roots.check(asked)}


def test_artifacts_that_can_be_listed_are_well() -> None:
    """It says at how many it looked, and how many it left; and without any run, nothing."""
    assert findings(None) == {}
    (found,) = findings(WELL).values()
    assert (found.check, found.state) == ("artifact roots", State.OK)
    assert found.found == "those of the youngest runs of 20 experiments can be listed"
    (found,) = findings(replace(WELL, looked=1, unasked=7)).values()
    assert "the youngest run of one experiment (7 more gave no answer in time)" in found.found


def test_artifacts_that_are_gone_are_a_fault() -> None:
    """With the runs, where they should be, and what came of it."""
    lost = tuple(LostRoot(f"r{n}", f"s3://models/team/1/r{n}", "status 500") for n in range(5))
    found = findings(replace(WELL, lost=lost))["artifact roots"]
    assert found.state is State.FAULT
    assert "the artifacts of 5 can't be listed: r0 (s3://models/team/1/r0): status 500" in found.found
    assert found.found.endswith("and 2 more.")
    assert "kubectl logs -n team-a deploy/tracking" in found.next


def test_experiments_in_another_store_are_worth_knowing() -> None:
    """Those in the server's own are not, by whatever way they are reached; a name that only begins like it is."""
    places = {"1": "s3://models/team/1", "2": "s3://models/team-b/2", "3": "gs://old/3"}
    elsewhere = tuple(Elsewhere(id_, place) for id_, place in places.items())
    found = findings(replace(WELL, elsewhere=elsewhere))["artifacts elsewhere"]
    assert found.state is State.NOTE
    assert "2 (s3://models/team-b/2), 3 (gs://old/3)." in found.found


def cleaned(spec: Object | None, **status: object) -> list[Finding]:
    """Of a server with that clean-up."""
    resource = server(garbageCollection=status)
    resource["spec"] = {} if spec is None else {"garbageCollection": spec}
    return [*garbage.check("server team-a/tracking", resource, NOW)]


def test_the_last_clean_up_is_told() -> None:
    """How long ago it was and what went; nothing where none is asked for."""
    assert cleaned(None, lastRunTime="2026-11-22T03:00:00Z") == []
    (none,) = cleaned({})
    assert (none.state, "none has got through yet" in none.found) == (State.OK, True)
    (last,) = cleaned({}, lastRunTime="2026-11-22T03:00:00Z", mode="Delete", deletedRuns=12, deletedTraces=1)
    assert last.found == "the last one is 2 days old and removed 12 runs, 0 models, 0 experiments, 1 trace"
    (dry,) = cleaned({}, lastRunTime="2026-11-22T03:00:00Z", mode="DryRun")
    assert dry.found.endswith("(a dry run)")
