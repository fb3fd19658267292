"""What the operator knows about a version, a schema revision, and the way from one version to another."""

import pytest

from mlflow_operator.model.release import version_key
from mlflow_operator.model.versions import SCHEMA_HEADS, release_that_stops_writers, version_for_revision


def test_versions_are_sorted_by_number() -> None:
    """Not as text; a suffix of a pre-release or of a custom build is ignored."""
    assert (
        version_key("3.9.0") < version_key("3.10.0") == version_key("3.10.0rc1") == version_key("3.10.0+corp")
    )
    assert version_key("unknown") == ()


def test_newest_version_is_chosen_for_a_revision() -> None:
    """An unknown revision has none."""
    assert version_for_revision(SCHEMA_HEADS["2.22.0"]) == "2.22.5"
    assert version_for_revision(SCHEMA_HEADS["3.9.0"]) == "3.9.0"
    assert version_for_revision("0000") is None


@pytest.mark.parametrize(
    ("case", "from_version", "from_revision", "to_version", "expected"),
    [
        ("across", "3.16.1", SCHEMA_HEADS["3.16.1"], "3.17.2", "3.17.0"),
        ("across, from MLflow 2", "2.22.5", SCHEMA_HEADS["2.22.5"], "3.17.0", "3.17.0"),
        (
            "across, to a release that is not in the catalogue",
            "3.16.1",
            SCHEMA_HEADS["3.16.1"],
            "3.99.0",
            "3.17.0",
        ),
        ("across, to a pre-release", "3.16.1", SCHEMA_HEADS["3.16.1"], "3.17.0rc0", "3.17.0"),
        ("before", "3.14.0", SCHEMA_HEADS["3.14.0"], "3.16.1", None),
        ("after", "3.17.2", SCHEMA_HEADS["3.17.2"], "3.99.0", None),
        ("an older backup was restored", "3.17.2", SCHEMA_HEADS["3.16.1"], "3.99.0", "3.17.0"),
        ("unknown revision of a later version", "3.98.0", "0000", "3.99.0", None),
        ("unknown revision of an earlier version", "3.16.9", "0000", "3.17.2", "3.17.0"),
        ("nothing is known", None, None, "3.17.2", "3.17.0"),
    ],
)
def test_release_that_requires_stopped_writers_is_found(
    case: str, from_version: str | None, from_revision: str | None, to_version: str, expected: str | None
) -> None:
    """The revision of the database counts more than the version of the server."""
    found = release_that_stops_writers(from_version, from_revision, to_version)
    assert (found.version if found else None) == expected, case
