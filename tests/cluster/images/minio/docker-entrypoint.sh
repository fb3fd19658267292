#!/bin/sh
# What is no program is a command of minio: `server /data` runs `minio server /data`.
[ "$1" = minio ] || [ $# -eq 0 ] || set -- minio "$@"
exec "$@"
