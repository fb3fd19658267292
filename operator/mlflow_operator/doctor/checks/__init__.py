"""What was seen, judged: pure functions from `Seen` to findings."""

from collections.abc import Iterator

from mlflow_operator.doctor.checks import definition, operators, servers
from mlflow_operator.doctor.finding import Finding, State
from mlflow_operator.doctor.seen import ObservedCluster


def findings(seen: ObservedCluster) -> tuple[Finding, ...]:
    """All there is to say, in the order in which one thing rests on another."""
    return tuple(_findings(seen))


def _findings(seen: ObservedCluster) -> Iterator[Finding]:
    yield definition.check(seen)
    yield from operators.check(seen)
    if not seen.servers and seen.definition is not None:
        yield Finding("cluster", "servers", State.NOTE, "There is no MLflowServer where it was looked for.")
    for server in seen.servers:
        yield from servers.check(server, seen)
