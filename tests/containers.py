"""Containers beside the cluster, for tests of images and of what talks to one program alone."""

import subprocess


def docker(*argv: str, stdin: str = "", check: bool = True) -> str:
    """What a docker command prints on both channels; an AssertionError with it if the command fails."""
    done = subprocess.run(
        ("docker", *argv),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout.strip()
