# Restores the dump from the named pipe "dump" into the database, in one transaction. The other container of this pod
# writes the file "ready" when a dump is available, pg_service.conf with the connection settings, and commit.sql with
# the statements that end the transaction. commit.sql exists only if the complete dump was verified; without it the
# transaction is rolled back. The result goes to the named pipe "outcome". Plain sh, for images without bash.
set -u
cd "$RESTORE_FOLDER"
export LC_ALL=C
waited=0
until [ -e ready ]; do
    # the image of the other container may have to be pulled
    if [ -e finished ] || [ "$waited" -ge 4500 ]; then
        echo "there is nothing to restore" >&2
        exit 1
    fi
    sleep 0.2
    waited=$((waited + 1))
done
exec 3>outcome
trap 'exit 143' TERM INT
export PGSERVICEFILE="$PWD/pg_service.conf" PGSERVICE=restore PGPASSFILE="$PWD/pgpass"
export PGAPPNAME=mlflow-operator-restore

fail() {
    echo "$1" >&3
    exit 1
}

for program in pg_restore psql; do
    command -v "$program" >/dev/null || fail "the image has no $program"
done

# Removes a setting that Postgres before 17 does not support. It is in the first lines; cat then passes the rest on.
supported() {
    lines=0
    while [ "$lines" -lt 60 ] && IFS= read -r line; do
        [ "$line" = "SET transaction_timeout = 0;" ] || printf '%s\n' "$line"
        lines=$((lines + 1))
    done
    cat
}

# Only this schema, and not the statements that create it: it may exist. Extensions, which only a superuser may create,
# and schemas of other applications are not restored either.
schema=$(cat schema)
set --
[ -z "$schema" ] || set -- "--schema=$schema"

statements() {
    cat begin.sql
    {
        pg_restore --format=custom --no-owner --no-acl --no-comments --no-publications --no-security-labels \
            --no-subscriptions --no-tablespaces "$@" --file=- <dump
        echo "$?" >restored
    } | supported
    if [ "$(cat restored)" = 0 ]; then
        cat commit.sql
    fi
}

# psql ends at the first error, or at the end of the statements; without COMMIT the transaction is rolled back
statements "$@" | psql --no-psqlrc --no-password --quiet --set=ON_ERROR_STOP=1 --output=/dev/null
code=$?
[ "$code" = 0 ] || fail "psql ended with exit code $code"
[ "$(cat restored)" = 0 ] || fail "pg_restore ended with exit code $(cat restored)"
[ -e commit.sql ] || fail "the dump is incomplete"
echo 0 >&3
