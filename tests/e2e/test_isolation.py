"""Two servers in two namespaces: neither sees the other's work, and neither opens the other's doors."""

import pytest

from mlflow_operator.core.database_uri import DIALECT
from tests.e2e.inside import environment, logs_in, opens
from tests.e2e.kube import CommandError, Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, small


def test_two_servers_share_nothing(ns: Kube, other_ns: Kube) -> None:
    """Same name, two namespaces. Each one's password and key are tried on the other's stores, for real."""
    first, second = Server(ns).apply(small()), Server(other_ns).apply(small())
    first.ready()
    second.ready()
    Scientist(first.url).work("mine")
    Scientist(second.url).work("yours")
    assert Scientist(first.url).experiments() == {"Default", "mine"}
    assert Scientist(second.url).experiments() == {"Default", "yours"}

    one, two = first.generated(), second.generated()
    assert not set(one.values()) & set(two.values()), "the same secret was generated twice"
    for caller, key, host in ((first, one, second), (second, two, first)):
        own = host.generated()
        # the door and its own key first: otherwise a refusal would prove nothing
        logs_in(caller, libpq(own["database URI"]))
        uri = libpq(own["database URI"]).replace(own["database password"], key["database password"])
        with pytest.raises(CommandError, match="password authentication failed"):
            logs_in(caller, uri)

        for who, word in (("root key", "root secret"), ("artifact key", "artifact secret")):
            assert opens(caller, host, own[who], own[word])
            assert not opens(caller, host, key[who], key[word])
            assert not opens(caller, host, own[who], key[word])


def test_the_root_key_of_the_store_is_not_given_to_the_server(shared: Server) -> None:
    """Whoever breaks into it finds a key for its bucket alone."""
    found, values = environment(shared), shared.generated()
    assert {values["artifact key"], values["artifact secret"]} <= found
    assert not {values["root key"], values["root secret"]} & found


def libpq(uri: str) -> str:
    """SQLAlchemy names a driver in the scheme, libpq knows none."""
    return uri.replace(f"{DIALECT}://", "postgresql://", 1)
