"""Docker containers outside the cluster, for tests of images and of single programs."""

import subprocess


def docker(*argv: str, stdin: str = "", check: bool = True) -> str:
    """Run a docker command and return its stdout and stderr. If it fails, raise AssertionError with that output."""
    process = subprocess.run(
        ("docker", *argv),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not check or process.returncode == 0, process.stdout
    return process.stdout.strip()
