"""Whether the artifacts of runs can be listed, and are in the server's own store."""

from collections.abc import Iterator

from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.observed import Server

_MAX_LISTED = 3


def check(server: Server) -> Iterator[Finding]:
    """No findings if the server could not be probed or has no runs."""
    result = server.in_cluster
    if result is None or isinstance(result, Unobserved) or result.artifact_roots is None:
        return
    roots = result.artifact_roots
    runs = f"the latest runs of {roots.checked} experiments"
    checked_runs = runs if roots.checked != 1 else "the latest run of one experiment"
    if roots.unchecked:
        checked_runs += f" ({roots.unchecked} more experiments could not be checked in time)"
    if roots.unreadable:
        listed = "; ".join(
            f"{run.run} ({run.location}): {run.error}" for run in roots.unreadable[:_MAX_LISTED]
        )
        more = len(roots.unreadable) - _MAX_LISTED
        yield Finding(
            server.subject,
            "run artifacts",
            State.FAILED,
            f"Checked {checked_runs}: the artifacts of {len(roots.unreadable)} cannot be listed: {listed}"
            + (f"; and {more} more." if more > 0 else "."),
            f"See ArtifactStoreReady and the server's log: kubectl logs -n {server.namespace} "
            f"deploy/{server.resource['metadata']['name']}. If the bucket was deleted, restore it from a copy.",
        )
    elif roots.checked:
        yield Finding(server.subject, "run artifacts", State.OK, f"can be listed for {checked_runs}")
    store_uri = str(((server.resource.get("status") or {}).get("artifacts") or {}).get("uri") or "")
    other_locations = [
        location for location in roots.not_proxied if not _is_within(location.location, store_uri)
    ]
    if other_locations:
        listed = ", ".join(
            f"{location.experiment} ({location.location})" for location in other_locations[:_MAX_LISTED]
        )
        more = len(other_locations) - _MAX_LISTED
        yield Finding(
            server.subject,
            "other artifact stores",
            State.NOTE,
            f"Experiments with artifacts in another store than the server's: {listed}"
            + (f", and {more} more." if more > 0 else "."),
            "The operator does not manage that store; the server and the clients need their own access to it.",
        )


def _is_within(location: str, store: str) -> bool:
    return bool(store) and f"{location.rstrip('/')}/".startswith(f"{store.rstrip('/')}/")
