"""`python -m tests.e2e [arguments of pytest]`."""

import sys

from tests.e2e import run

sys.exit(run.main(sys.argv[1:]))
