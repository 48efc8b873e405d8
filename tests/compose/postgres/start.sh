# PostgreSQL with its data in /data/pg, which is made the first time.
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
mkdir -p /data/pg
chown postgres:postgres /data/pg
chmod 700 /data/pg
if [ ! -e /data/pg/PG_VERSION ]; then
    as_postgres "$bin/initdb" -D /data/pg -A trust --locale=C -E UTF8
    echo 'host all all all trust' >>/data/pg/pg_hba.conf
fi
exec setpriv --reuid postgres --regid postgres --clear-groups "$bin/postgres" -D /data/pg \
    -c listen_addresses='*' -c unix_socket_directories=/tmp
