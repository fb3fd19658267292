"""How kopf is made to watch: what it must not do, and what it must not ask for."""

from mlflow_operator.controller import watch


def test_kopf_writes_nothing() -> None:
    """Events are ours alone to publish."""
    assert not watch.settings().posting.enabled


def test_a_list_of_namespaces_takes_no_rights_beyond_them() -> None:
    """kopf asks for namespaces and definitions, is refused, and tries again for a minute before it watches."""
    assert watch.settings(["team-a"]).scanning.disabled


def test_all_namespaces_notice_a_definition_that_comes_late() -> None:
    """With the whole cluster in view kopf looks out for it; the ClusterRole grants that."""
    assert not watch.settings().scanning.disabled
