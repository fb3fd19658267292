"""Scripts that run in MLflow's and in Postgres' images. They import nothing from the operator."""

import re
from importlib.resources import files

_COMMON_IMPORT = re.compile(r"^from \.?(\w+_common) import (?:\([^)]*\)|[^(\n]*)\n", re.MULTILINE)


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text()


def _with_common(name: str) -> str:
    """Return a script with the modules that it imports in front of it, because a pod gets one program, no package."""
    modules = _common_modules(_read(name))
    if not modules:
        raise ValueError(f"{name} must import from a module whose name ends with _common")
    return "\n\n".join(_COMMON_IMPORT.sub("", _read(file)) for file in (*modules, name))


def _common_modules(script: str) -> list[str]:
    """Return the files of the modules that a script needs, each after those that it needs itself."""
    files = [f"{module}.py" for module in _COMMON_IMPORT.findall(script)]
    return list(dict.fromkeys(each for file in files for each in (*_common_modules(_read(file)), file)))


PROXIED_S3 = _with_common("proxied_s3.py")
PUBLIC_S3 = _with_common("public_s3.py")
JSON_WRITER = _read("json_writer.py")
DIRECT = _read("direct.py")
DUAL_STACK = _read("dual_stack.py")
LAUNCHER = _read("launcher.py")
SMALL_POOL = _read("small_pool.py")
GARBAGE_COLLECTION = _with_common("garbage_collection.py")
MIGRATE = _with_common("migrate.py")
AUTHENTICATE = _with_common("authenticate.py")
AUTHENTICATION = _read("authentication.py")
MODEL_SOURCES = _read("model_sources.py")
PASSWORD_CHECK = _read("password_check.py")
REQUEST_LOGIN = _read("request_login.py")
PREFLIGHT = _with_common("preflight.py")
REWRAP = _with_common("rewrap.py")
BACKUP = _with_common("backup.py")
PG_DUMP = _read("pg_dump.sh")
RESTORE = _with_common("restore.py")
PG_RESTORE = _read("pg_restore.sh")
