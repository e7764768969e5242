#!/usr/bin/env bash
# What HTTP clients wait for at a fixed rate: builds, starts every service on servers of its own, posts,
# verifies, and removes everything whatever happens.
#
#   benches/latency.sh kafka [FLAG..]      gateway, ledger, project and query as processes, on a real Kafka
#   benches/latency.sh dev [FLAG..]        one `millrace dev`
#
# The flags are those of `latency`; without any: 1,000 single posts a second for 30 s, then 10,000
# transactions a second in NDJSON of 100, then in arrays of 100.

set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-}
case $kind in kafka | dev) shift ;; *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 64 ;; esac

target=${CARGO_TARGET_DIR:-target}
servers=$target/latency-servers
logs=$target/latency-logs
millrace=$target/release/millrace

cargo build --release --locked -p millrace -p millrace-benches
mkdir -p "$logs"
pids=()

finish() {
    local pid
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait || true
    [ "$kind" = dev ] || infra/local/down.sh --dir "$servers"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# start NAME ARGUMENT..: a service whose log is NAME.log
start() {
    local name=$1
    shift
    "$millrace" "$@" >"$logs/$name.log" 2>&1 &
    pids+=($!)
}

# said NAME PATTERN: what the pattern finds in the service's log, once it is there
said() {
    local found tries
    for ((tries = 0; tries < 300; tries++)); do
        found=$(grep -aoP "$2" "$logs/$1.log" | head -1) && [ -n "$found" ] && { echo "$found"; return; }
        sleep 0.1
    done
    echo "$1 does not start:" >&2
    tail "$logs/$1.log" >&2
    exit 1
}

if [ "$kind" = dev ]; then
    start dev dev --rate 0
    gateway=$(said dev 'http://\K[0-9.:]+(?=/v1/transactions)')
    query=$(said dev 'http://\K[0-9.:]+(?=/v1/accounts)')
    DATABASE_URL=$(said dev 'DATABASE_URL=\K\S+')
    export DATABASE_URL
else
    infra/local/up.sh --bench --dir "$servers"
    set -a
    # shellcheck source=/dev/null
    . "$servers/env"
    set +a
    export MILLRACE_ADMIN_LISTEN=127.0.0.1:0
    "$millrace" migrate
    "$millrace" topics create --partitions 12
    start ledger ledger
    start project project
    MILLRACE_LISTEN=127.0.0.1:0 start gateway gateway
    MILLRACE_LISTEN=127.0.0.1:0 start query query
    gateway=$(said gateway 'gateway: http://\K[0-9.:]+')
    query=$(said query 'query: http://\K[0-9.:]+')
fi

# Joining the group is not what is measured.
sleep 5
failed=0
latency() {
    "$target/release/latency" --gateway "$gateway" --query "$query" --servers "$kind" "$@" || failed=1
}
if [ $# -gt 0 ]; then
    latency "$@"
else
    latency
    latency --rate 10000 --items 100 --format ndjson
    latency --rate 10000 --items 100 --format json
fi
"$millrace" verify
exit "$failed"
