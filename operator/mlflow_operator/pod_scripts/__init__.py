"""Scripts that run in MLflow's and in Postgres' images. They import nothing from the operator."""

import re
from importlib.resources import files

_COMMON_IMPORT = re.compile(r"^from dump_common import \([^)]*\)\n", re.MULTILINE)


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text()


def _with_common(name: str) -> str:
    """Return a script with dump_common.py in front of it, because a pod gets one program and no package."""
    script, replaced = _COMMON_IMPORT.subn("", _read(name))
    if replaced != 1:
        raise ValueError(f"{name} must import from dump_common once, in parentheses")
    return f"{_read('dump_common.py')}\n\n{script}"


PROXIED_S3 = _read("proxied_s3.py")
PUBLIC_S3 = _read("public_s3.py")
JSON_WRITER = _read("json_writer.py")
DIRECT = _read("direct.py")
LAUNCHER = _read("launcher.py")
GARBAGE_COLLECTION = _read("garbage_collection.py")
MIGRATE = _read("migrate.py")
PREFLIGHT = _read("preflight.py")
BACKUP = _with_common("backup.py")
PG_DUMP = _read("pg_dump.sh")
RESTORE = _with_common("restore.py")
PG_RESTORE = _read("pg_restore.sh")
