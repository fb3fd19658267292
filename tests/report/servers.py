"""How many MLflowServers the tests of this process created."""

_created = 0


def count(number: int = 1) -> None:
    """Adds `number` created MLflowServers to the running test. Call it where a test creates one."""
    global _created  # noqa: PLW0603 - one number for the whole process
    _created += number


def created() -> int:
    """All that were counted since the process started."""
    return _created
