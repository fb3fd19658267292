# Writes a dump to the named pipe "dump", which the other container of this pod reads. That container writes
# pg_service.conf with the connection settings, "tables" with the tables, and "finished" if it needs no dump. The exit
# code of pg_dump goes to the file "code". Plain sh, for images without bash.
set -u
cd "$BACKUP_FOLDER"
trap 'exit 143' TERM INT
waited=0
until [ -e pg_service.conf ]; do
    # the image of the other container may have to be pulled
    if [ -e finished ] || [ "$waited" -ge 4500 ]; then
        echo "no dump was requested" >&2
        exit 1
    fi
    sleep 0.2
    waited=$((waited + 1))
done
export PGSERVICEFILE="$PWD/pg_service.conf" PGSERVICE=backup PGPASSFILE="$PWD/pgpass" PGAPPNAME=mlflow-operator-backup
set --
while IFS= read -r table; do
    set -- "$@" "--table=$table"
done <tables
# The other container may have failed meanwhile: opening the pipe for writing would then wait for a reader for ever. With
# its reading end open here, it does not wait. That end is closed before pg_dump starts, which otherwise would wait for
# ever when the pipe is full; without a reader, it fails.
exec 3<>dump 4>dump 3>&-
if command -v pg_dump >/dev/null; then
    pg_dump --no-password --format=custom --lock-wait-timeout=300s --strict-names "$@" >&4 2>errors
    code=$?
else
    echo "the image has no pg_dump" >errors
    code=127
fi
exec 4>&-
cat errors >&2
echo "$code" >code.new
mv code.new code
exit "$code"
