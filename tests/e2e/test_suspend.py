"""Suspended: no pod runs, all data stays."""

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, eventually, small


def test_a_suspended_server_takes_nothing_and_comes_back_whole(ns: Kube) -> None:
    """Down to no pod at all, said so in the status, and up again under its old URL with everything in it."""
    server = Server(ns).apply(small(garbageCollection={})).ready()
    url = server.status["url"], server.url
    scientist = Scientist(server.url)
    work = scientist.work()

    server.change(suspend=True)
    server.until("Ready", "False", "Suspended", within=timeouts.SETTLED)
    eventually("no pod runs", lambda: not server.running(), timeouts.GONE)
    assert all(cronjob["spec"]["suspend"] for cronjob in ns.list("CronJob"))
    assert {claim["metadata"]["name"] for claim in ns.list("PersistentVolumeClaim")} == {
        server.names.postgres_data,
        server.names.artifact_store_data,
    }

    server.change(suspend=False)
    server.ready()
    assert (server.status["url"], server.url) == url
    assert not any(cronjob["spec"]["suspend"] for cronjob in ns.list("CronJob"))
    scientist.finds(work)
