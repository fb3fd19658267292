#!/bin/sh
# If the first argument is not `minio`, the arguments are a command of minio: `server /data` runs `minio server /data`.
[ "$1" = minio ] || [ $# -eq 0 ] || set -- minio "$@"
exec "$@"
