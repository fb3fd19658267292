# Puts the dump that comes out of a pipe into the database, in one transaction. The container beside this one says in
# "ready" that there is one, in pg_service.conf how to reach the database, and in commit.sql, which is there only if the
# whole dump was what was backed up, how the transaction ends. Without it nothing is kept. Plain sh, for images without
# bash. Says how it ended into the pipe "outcome".
set -u
cd "$RESTORE_FOLDER"
export LC_ALL=C
waited=0
until [ -e ready ]; do
    # the other one's image may have to be pulled
    if [ -e over ] || [ "$waited" -ge 4500 ]; then
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

end() {
    echo "$1" >&3
    exit 1
}

for program in pg_restore psql; do
    command -v "$program" >/dev/null || end "the image has no $program"
done

# Leaves out what releases before 17 don't know. It stands at the top; all that follows goes through untouched, and fast.
known() {
    lines=0
    while [ "$lines" -lt 60 ] && IFS= read -r line; do
        [ "$line" = "SET transaction_timeout = 0;" ] || printf '%s\n' "$line"
        lines=$((lines + 1))
    done
    cat
}

statements() {
    cat begin.sql
    {
        pg_restore --format=custom --no-owner --no-acl --no-comments --no-publications --no-security-labels \
            --no-subscriptions --no-tablespaces --file=- <dump
        echo "$?" >restored
    } | known
    if [ "$(cat restored)" = 0 ]; then
        cat commit.sql
    fi
}

# a statement that fails ends it, and so do statements that end before COMMIT: then the transaction is rolled back
statements | psql --no-psqlrc --no-password --quiet --set=ON_ERROR_STOP=1 --output=/dev/null
code=$?
[ "$code" = 0 ] || end "psql ended with exit code $code"
[ "$(cat restored)" = 0 ] || end "pg_restore ended with exit code $(cat restored)"
[ -e commit.sql ] || end "the dump was not whole"
echo 0 >&3
