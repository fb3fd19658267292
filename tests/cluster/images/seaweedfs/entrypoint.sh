#!/bin/sh
# The first argument is a command of weed. Some commands get default options, which later options override.
export GODEBUG="${GODEBUG:+$GODEBUG,}fips140=on"
if [ "$(id -u)" = 0 ]; then
  [ "$(stat -c %u:%g /data)" = 1000:1000 ] || chown -R seaweed:seaweed /data
  exec gosu seaweed "$0" "$@"
fi
command=$1
[ $# -eq 0 ] || shift
case $command in
  server) set -- server -dir=/data -volume.max=0 -master.volumeSizeLimitMB=1024 "$@" ;;
  mini) set -- mini -dir=/data "$@" ;;
  master) set -- master -mdir=/data -volumeSizeLimitMB=1024 "$@" ;;
  volume) set -- volume -dir=/data -max=0 "$@" ;;
  *) exec /usr/bin/weed $command "$@" ;;
esac
exec /usr/bin/weed -logtostderr=true "$@"
