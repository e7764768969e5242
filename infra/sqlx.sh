#!/usr/bin/env bash
# Keeps .sqlx, from which sqlx's query macros compile without a database, equal to the queries and migrations.
#
#   infra/sqlx.sh prepare   writes .sqlx anew: after a query or a migration has changed
#   infra/sqlx.sh check     fails when .sqlx is not what prepare would write
#
# Uses the server of DATABASE_URL (as superuser, in a scratch database), or else starts one for the occasion.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/local/lib.sh"

MIGRATIONS=$REPO/consumers/ledger/migrations
SAVED=$REPO/.sqlx

case ${1:-} in
    prepare | check) [ $# = 1 ] || usage_error "one argument is enough" ;;
    -h | --help) help ;;
    *) usage_error "say prepare or check" ;;
esac

cd "$REPO"
fresh=$(mktemp -d)
server='' scratch=''
cleanup() {
    [ -z "$scratch" ] || "$PG_BIN/dropdb" --if-exists --force --maintenance-db="$DATABASE_URL" "$scratch" || true
    [ -z "$server" ] || "$HERE/down.sh" --dir "$server" >&2
    rm -rf "$fresh"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

find_postgres
if [ -z "${DATABASE_URL:-}" ]; then
    server=$REPO/target/local-sqlx-$$
    "$HERE/up.sh" --dir "$server" >&2
    DATABASE_URL=$(sed -n 's/^DATABASE_URL=//p' "$server/env")
fi
scratch=millrace_sqlx_$$
"$PG_BIN/createdb" --maintenance-db="$DATABASE_URL" "$scratch"
scratch_url=${DATABASE_URL%/*}/$scratch

for migration in "$MIGRATIONS"/*.sql; do
    in_one_db_tx=(--single-transaction)
    if head -n 1 "$migration" | grep -q '^-- no-transaction'; then in_one_db_tx=(); fi
    "$PG_BIN/psql" "$scratch_url" -Xq -v ON_ERROR_STOP=1 "${in_one_db_tx[@]}" -f "$migration" >/dev/null
done

# With a live database and SQLX_OFFLINE_DIR set, each macro saves what it learnt as it is expanded. Cargo does not
# know of that: touching the files that use the macros makes it expand them again, and only their crates.
grep -rlZE 'query(_as|_scalar|_file|_file_as|_file_scalar)?!' --include='*.rs' --exclude-dir=target . | xargs -0r touch || true
SQLX_OFFLINE=false DATABASE_URL=$scratch_url SQLX_OFFLINE_DIR=$fresh cargo check --quiet --workspace --all-targets

if [ "$1" = prepare ]; then
    rm -rf "$SAVED"
    mkdir "$SAVED"
    find "$fresh" -name 'query-*.json' -exec cp -t "$SAVED" {} +
    say ".sqlx: $(find "$SAVED" -name 'query-*.json' | wc -l) queries"
elif ! diff -r "$SAVED" "$fresh"; then
    die ".sqlx is out of date: run infra/sqlx.sh prepare and commit it"
fi
