#!/usr/bin/env bash
# What each setting of infra/postgres/postgresql.conf does for a drain: builds everything, starts servers of its own, drains
# once with the settings as they are, then with one of them at Postgres' default, then as they are again, and removes
# the servers whatever happens.
#
#   benches/settings.sh [COUNT [RUNS]]        transactions in a drain (default: 2000000), rounds (default: 1)
#
# The results are in benches/results/settings.jsonl, and the table on standard output is made from them.
# `synchronous_commit = off` is among them to know what it costs: with it, an accepted transaction may be lost.

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=benches/lib.sh
. benches/lib.sh

CASES=(
    'as it is'
    'shared_buffers=128MB'
    'max_wal_size=1GB checkpoint_timeout=5min'
    'wal_compression=off'
    'wal_buffers=-1'
    'synchronous_commit=off'
    'as it is'
)
RESULTS=benches/results/settings.jsonl

case ${1:-} in -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit ;; esac
count=${1:-2000000} rounds=${2:-1}
for number in "$count" "$rounds"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || { printf '%s: %s is not a number above 0 (see --help)\n' "${0##*/}" "$number" >&2; exit 64; }
done

target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked -p millrace-benches -p millrace
trap finish EXIT
trap 'exit 130' INT TERM HUP
start_servers "$target/settings-servers"

# The server with some settings in place of those of the file.
restart_with() {
    sql 'alter system reset all'
    local setting
    for setting in "$@"; do
        sql "alter system set ${setting%%=*} = '${setting#*=}'"
    done
    restart_postgres
}

for ((round = 1; round <= rounds; round++)); do
    for case in "${CASES[@]}"; do
        printf '== %s\n' "$case"
        settings=()
        [ "$case" = 'as it is' ] || read -ra settings <<<"$case"
        restart_with "${settings[@]}"
        one=$(mktemp)
        "$target/release/bench" --count "$count" --results "$one" >/dev/null
        python3 - "$case" "$one" >>"$RESULTS" <<'PYTHON'
import json, sys
record = json.load(open(sys.argv[2]))
print(json.dumps({"settings": sys.argv[1], **record}))
PYTHON
        rm "$one"
    done
done

python3 - "$RESULTS" <<'PYTHON'
import json, sys
from statistics import median

runs = {}
for line in open(sys.argv[1]):
    record = json.loads(line)
    runs.setdefault(record["settings"], []).append(record["figures"])
print("| settings | runs | tx/s | ledger µs | Postgres µs | checkpoint µs | WAL bytes |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for settings, figures in runs.items():
    def of(name):
        return median(each[name] for each in figures)
    print(f"| {settings} | {len(figures)} | {of('tx_per_s'):,.0f} | {of('ledger_us'):.1f} | {of('postgres_us'):.1f} "
          f"| {of('checkpoint_us'):.1f} | {of('wal_bytes'):.0f} |")
PYTHON
