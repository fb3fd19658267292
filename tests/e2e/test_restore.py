"""What was backed up comes back: runs, models, files, in a server made again on an empty database."""

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import LITTLE, Server, eventually, small

NEVER = "0 0 29 2 *"
"""A schedule that hardly ever comes: backups are made by hand here."""

DONE = 120.0
"""Seconds until a Job of a small database has ended, its pod's start included."""


def test_a_server_comes_back_from_its_backup(ns: Kube) -> None:
    """As the page has it: the database is lost for good, the artifact store with the backup in it is not."""
    server = Server(ns).apply(small(backup={"schedule": NEVER})).ready()
    work = Scientist(server.url).work("before")
    another_major_version_is_refused(server)

    ns.kubectl("create", "job", "--from=cronjob/tracking-backup", "by-hand")
    made = eventually(
        "the backup is told of", lambda: (server.status.get("backup") or {}).get("lastID"), DONE
    )
    Scientist(server.url).run()
    server.delete()
    lost = (f"pvc/{server.names.postgres_data}", f"secret/{server.names.database_secret}")
    ns.kubectl("delete", *lost, within=timeouts.GONE)

    again = Server(ns).apply(small(restoreFrom={"serverName": "tracking"})).ready()
    scientist = Scientist(again.url)
    scientist.finds(work)
    assert scientist.experiments() == {"Default", "before"}, "what came after the backup is not in it"
    jobs = [job["metadata"]["name"] for job in ns.list("Job")]
    assert [name for name in jobs if "-restore-" in name]
    assert not [name for name in jobs if "-migrate-" in name]
    assert again.status["restoredBackup"] == made
    scientist.finds(scientist.work("after"))


def another_major_version_is_refused(server: Server) -> None:
    """The database's pod is the very same one all the while, and the server answers."""
    pod = server.pod("database")["metadata"]["uid"]
    other = {"embedded": {"resources": LITTLE, "image": "docker.io/library/postgres:16-trixie"}}
    server.change(database=other)
    told = server.until("DatabaseReady", "False", "DatabaseVersionUnsupported", within=timeouts.SETTLED)
    assert "Postgres 16" in told["message"]
    server.answers()
    server.change(database={"embedded": {"image": None}})
    server.until("Ready", within=timeouts.SETTLED)
    assert server.pod("database")["metadata"]["uid"] == pod
