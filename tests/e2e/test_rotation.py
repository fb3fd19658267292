"""What a server reads changes: its pods roll, within one resync, and read the new values."""

from tests.e2e import stores, timeouts
from tests.e2e.certificates import authority
from tests.e2e.kube import Kube, Object
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, small
from tests.e2e.stores import secret


def config_map(**values: str) -> Object:
    """ConfigMap `team` with these values."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "team"}, "data": values}


def environment(server: Server, variable: str) -> str:
    """A variable as the running server process has it."""
    return server.kube.kubectl("exec", server.pod()["metadata"]["name"], "--", "printenv", variable).strip()


def test_pods_roll_when_a_config_map_or_secret_changes(ns: Kube) -> None:
    """envFrom a ConfigMap, one variable from a Secret; each change brings a pod that has the new value."""
    ns.apply(config_map(TEAM="one"), secret("token", value="first"))
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}}]
    server = Server(ns).apply(small(envFrom=[{"configMapRef": {"name": "team"}}], env=env)).ready()
    assert (environment(server, "TEAM"), environment(server, "TOKEN")) == ("one", "first")

    old = server.pod()
    ns.apply(config_map(TEAM="two"))
    old = server.replaced("server", old, timeouts.NOTICED + timeouts.ROLLED)
    assert environment(server, "TEAM") == "two"
    ns.apply(secret("token", value="second"))
    server.replaced("server", old, timeouts.NOTICED + timeouts.ROLLED)
    assert environment(server, "TOKEN") == "second"
    server.ready()


def test_a_database_password_changed_by_its_owner_is_taken_up(ns: Kube, other_ns: Kube) -> None:
    """First in Postgres, then in the Secret: nobody restarts anything by hand."""
    postgres = stores.postgres(other_ns, authority("Root"))
    ns.apply(secret("postgres", username=postgres.user, password=postgres.password))
    external = {
        "host": postgres.host,
        "credentialsSecretRef": {"name": "postgres"},
        "tls": {"mode": "Require"},
    }
    server = Server(ns).apply(small(database={"external": external})).ready()
    scientist = Scientist(server.url)
    work = scientist.work()

    old = server.pod()
    postgres.query("alter role \"team@home\" password 'another/one@now'")
    ns.apply(secret("postgres", username=postgres.user, password="another/one@now"))
    server.look()
    server.replaced("server", old, timeouts.NOTICED + timeouts.ROLLED)
    postgres.query("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    server.ready()
    scientist.finds(work)
