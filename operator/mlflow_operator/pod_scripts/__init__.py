"""Scripts that run in MLflow's and in Postgres' images. They import nothing from the operator."""

from importlib.resources import files

PROXIED_S3 = files(__name__).joinpath("proxied_s3.py").read_text()
PUBLIC_S3 = files(__name__).joinpath("public_s3.py").read_text()
JSON_WRITER = files(__name__).joinpath("json_writer.py").read_text()
DIRECT = files(__name__).joinpath("direct.py").read_text()
LAUNCHER = files(__name__).joinpath("launcher.py").read_text()
GARBAGE_COLLECTION = files(__name__).joinpath("garbage_collection.py").read_text()
MIGRATE = files(__name__).joinpath("migrate.py").read_text()
PREFLIGHT = files(__name__).joinpath("preflight.py").read_text()
BACKUP = files(__name__).joinpath("backup.py").read_text()
PG_DUMP = files(__name__).joinpath("pg_dump.sh").read_text()
RESTORE = files(__name__).joinpath("restore.py").read_text()
PG_RESTORE = files(__name__).joinpath("pg_restore.sh").read_text()
