"""Whether runs' artifacts are where they were put, and in the server's own store."""

from collections.abc import Iterator

from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.seen import Server

_TOLD = 3


def check(server: Server) -> Iterator[Finding]:
    """Nothing where no server could be asked, or there are no runs yet."""
    if server.inside is None or isinstance(server.inside, Unobserved) or server.inside.roots is None:
        return
    roots = server.inside.roots
    several = f"the youngest runs of {roots.looked} experiments"
    looked = several if roots.looked != 1 else "the youngest run of one experiment"
    if roots.unasked:
        looked += f" ({roots.unasked} more gave no answer in time)"
    if roots.lost:
        first = "; ".join(f"{each.run} ({each.place}): {each.why}" for each in roots.lost[:_TOLD])
        more = len(roots.lost) - _TOLD
        yield Finding(
            server.subject,
            "artifact roots",
            State.FAULT,
            f"Of {looked}, the artifacts of {len(roots.lost)} can't be listed: {first}"
            + (f"; and {more} more." if more > 0 else "."),
            f"See ArtifactStoreReady, and the server's log: kubectl logs -n {server.namespace} "
            f"deploy/{server.resource['metadata']['name']}. Whose bucket is gone needs a copy of it back.",
        )
    elif roots.looked:
        yield Finding(server.subject, "artifact roots", State.OK, f"those of {looked} can be listed")
    own = str(((server.resource.get("status") or {}).get("artifacts") or {}).get("uri") or "")
    foreign = [each for each in roots.elsewhere if not _within(each.location, own)]
    if foreign:
        first = ", ".join(f"{each.experiment} ({each.location})" for each in foreign[:_TOLD])
        more = len(foreign) - _TOLD
        yield Finding(
            server.subject,
            "artifacts elsewhere",
            State.NOTE,
            f"Experiments keep artifacts in another store than the server's: {first}"
            + (f", and {more} more." if more > 0 else "."),
            "The operator does not look after that store; clients, and the server, need a way there of their own.",
        )


def _within(location: str, store: str) -> bool:
    return bool(store) and f"{location.rstrip('/')}/".startswith(f"{store.rstrip('/')}/")
