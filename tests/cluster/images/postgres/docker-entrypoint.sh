#!/bin/bash
# The part of the published image's entrypoint that this project uses: see the contract in README.md.
set -euo pipefail

die() { echo "Error: $*" >&2; exit 1; }

# from_file NAME DEFAULT: sets NAME to its value, to the content of the file in NAME_FILE, or to DEFAULT
from_file() {
  local file=$1_FILE
  [[ -z ${!1:-} || -z ${!file:-} ]] || die "both $1 and $file are set, only one can be meant"
  if [[ -n ${!file:-} ]]; then printf -v "$1" %s "$(<"${!file}")"; else printf -v "$1" %s "${!1:-$2}"; fi
  export "${1?}"; unset "$file"
}

# initdb looks up the name of its user, which an arbitrary user id does not have
set_user_name() {
  getent passwd "$(id -u)" >/dev/null && return
  NSS_WRAPPER_PASSWD=$(mktemp) NSS_WRAPPER_GROUP=$(mktemp)
  echo "postgres:x:$(id -u):$(id -g):PostgreSQL:$PGDATA:/bin/false" >"$NSS_WRAPPER_PASSWD"
  echo "postgres:x:$(id -g):" >"$NSS_WRAPPER_GROUP"
  LD_PRELOAD=$(find /usr/lib -name libnss_wrapper.so -print -quit)
  export LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
}
unset_user_name() {
  [[ -n ${NSS_WRAPPER_PASSWD:-} ]] || return 0
  unset LD_PRELOAD; rm -f "$NSS_WRAPPER_PASSWD" "$NSS_WRAPPER_GROUP"
  unset NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
}

initialise() {
  local auth=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256} sql file
  [[ -n $POSTGRES_PASSWORD || $auth == trust ]] ||
    die "the database is empty and POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE) is not set"
  set_user_name
  # POSTGRES_INITDB_ARGS is a command line with quotes, as in the published image
  eval "set_of_args=($POSTGRES_INITDB_ARGS)"
  initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") "${set_of_args[@]}"
  unset_user_name
  echo "host all all all $auth" >>"$PGDATA/pg_hba.conf"

  pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''${*:+ $(printf '%q ' "$@")}" start
  export PGPASSWORD=$POSTGRES_PASSWORD
  sql=(psql --no-psqlrc -v ON_ERROR_STOP=1 --username "$POSTGRES_USER")
  if [[ -z $("${sql[@]}" -d postgres -At -v db="$POSTGRES_DB" <<<"select 1 from pg_database where datname = :'db'") ]]; then
    "${sql[@]}" -d postgres -v db="$POSTGRES_DB" <<<'create database :"db"'
  fi
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sql) "${sql[@]}" -d "$POSTGRES_DB" -f "$file" ;;
      *.sh) if [[ -x $file ]]; then "$file"; else . "$file"; fi ;;
    esac
  done
  unset PGPASSWORD
  pg_ctl -D "$PGDATA" -m fast -w stop
  echo "PostgreSQL init process complete; ready for start up."
}

[[ ${1:-} != -* ]] || set -- postgres "$@"
if [[ ${1:-} == postgres && " $* " != *" --version "* && " $* " != *" --help "* ]]; then
  mkdir -p "$PGDATA"; chmod 0700 "$PGDATA" 2>/dev/null || true
  if [[ $(id -u) == 0 ]]; then
    chown -R postgres "$PGDATA" /var/run/postgresql
    exec gosu postgres "$0" "$@"
  fi
  from_file POSTGRES_PASSWORD ""
  from_file POSTGRES_USER postgres
  from_file POSTGRES_DB "$POSTGRES_USER"
  from_file POSTGRES_INITDB_ARGS ""
  [[ -s $PGDATA/PG_VERSION ]] || initialise "${@:2}"
fi
exec "$@"
