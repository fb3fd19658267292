# Writes a dump into the pipe of the container beside this one, which says in pg_service.conf how to reach the database
# and in "over" that it needs none any more. Plain sh, for images without bash. Says how pg_dump ended in "code".
set -u
cd "$BACKUP_FOLDER"
trap 'exit 143' TERM INT
waited=0
until [ -e pg_service.conf ]; do
    # the other one's image may have to be pulled
    if [ -e over ] || [ "$waited" -ge 4500 ]; then
        echo "nobody has asked for a dump" >&2
        exit 1
    fi
    sleep 0.2
    waited=$((waited + 1))
done
export PGSERVICEFILE="$PWD/pg_service.conf" PGSERVICE=backup PGPASSFILE="$PWD/pgpass" PGAPPNAME=mlflow-operator-backup
if command -v pg_dump >/dev/null; then
    pg_dump --no-password --format=custom --lock-wait-timeout=300s >dump 2>errors
    code=$?
else
    echo "the image has no pg_dump" >errors
    : >dump
    code=127
fi
cat errors >&2
echo "$code" >code.new
mv code.new code
exit "$code"
