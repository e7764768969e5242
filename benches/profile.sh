#!/usr/bin/env bash
# Where a drain's time goes: builds everything, starts servers of its own, drains once under perf with pg_stat_statements
# and auto_explain, and removes the servers whatever happens.
#
#   benches/profile.sh [COUNT [FLAG..]]      transactions (default: 1000000), and further flags of `millrace generate`
#
#   benches/profile.sh
#   benches/profile.sh 500000 --ids v4 --accounts 1000000 --skew zipf:1.0
#
# Writes to target/profile: ledger.svg and postgres.svg (flame graphs: width is CPU time), statements.md (each
# statement's time, pages and log per transaction), plans.txt (the slowest plan of each). Sampling and explaining
# slow the drain, so what it costs is for benches/run.sh to say. Needs what infra/local/up.sh needs, perf and the
# right to sample all processes; as root on Debian or Ubuntu it installs perf.

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=../infra/local/lib.sh
. infra/local/lib.sh
# shellcheck source=benches/lib.sh
. benches/lib.sh

INFERNO_VERSION=0.12.4
SAMPLES_HZ=299 # no multiple of what timers use

target=${CARGO_TARGET_DIR:-target}
out=$target/profile
millrace=$target/release/millrace
inferno=$target/tools/bin

main() {
    case ${1:-} in -h | --help) help ;; esac
    count=${1:-1000000}
    [[ $count =~ ^[1-9][0-9]*$ ]] || usage_error "'$count' is not a number above 0"
    [ $# = 0 ] || shift
    command -v perf >/dev/null || apt_install linux-perf
    [ -x "$inferno/inferno-flamegraph" ] ||
        cargo install --quiet --locked --root "$target/tools" --version "$INFERNO_VERSION" inferno
    # What the other benchmarks build, so that nothing is built again for the sake of its features.
    cargo build --release --locked -p millrace-benches -p millrace

    mkdir -p "$out"
    trap end EXIT
    trap 'exit 130' INT TERM HUP
    start_servers "$target/profile-servers"
    watch_statements
    "$millrace" migrate
    "$millrace" topics create --partitions 12
    "$millrace" generate --count "$count" "$@"
    drain
    say "== statements, plans and flame graphs"
    statements >"$out/statements.md"
    plans >"$out/plans.txt"
    flame_graph "The ledger, $count transactions" --pid "$drained_by" >"$out/ledger.svg"
    flame_graph "Postgres, $count transactions" --comms postgres >"$out/postgres.svg"
    rm "$out/perf.data"
    cat "$out/statements.md"
    say "$out: ledger.svg postgres.svg statements.md plans.txt"
}

recording='' ledger=''
end() {
    [ -z "$recording" ] || kill -INT "$recording" 2>/dev/null || true
    [ -z "$ledger" ] || kill -TERM "$ledger" 2>/dev/null || true
    wait
    finish
}

watch_statements() {
    sql "alter system set shared_preload_libraries = pg_stat_statements, auto_explain"
    restart_postgres
    sql "create extension pg_stat_statements"
}

drain() {
    sql checkpoint
    sql "alter system set auto_explain.log_min_duration = 0"
    sql "select pg_reload_conf(), pg_stat_statements_reset()" >/dev/null
    perf record --quiet --all-cpus --freq "$SAMPLES_HZ" --call-graph dwarf,16384 --output "$out/perf.data" &
    recording=$!
    "$millrace" ledger --lanes 2 --admin-listen 127.0.0.1:0 &
    ledger=$!
    until [ "$(sql "select coalesce(sum(position), 0) from millrace.positions")" = "$count" ]; do
        kill -0 "$ledger" 2>/dev/null || die "the ledger has ended before everything was applied"
        sleep 0.2
    done
    kill -INT "$recording"
    wait "$recording" || true
    kill -TERM "$ledger"
    wait "$ledger"
    drained_by=$ledger recording='' ledger=''
}

statements() {
    printf '| statement | times | µs | pages | bytes of log | whole pages |\n| --- | --- | --- | --- | --- | --- |\n'
    sql "select format('| \`%s\` | %s | %s | %s | %s | %s |',
            left(regexp_replace(query, '[[:space:]]+', ' ', 'g'), 90), calls,
            round((total_exec_time * 1000 / $count)::numeric, 2),
            round((shared_blks_hit + shared_blks_read)::numeric / $count, 2), round(wal_bytes / $count), wal_fpi)
        from pg_stat_statements
        where dbid = (select oid from pg_database where datname = current_database())
            and query not like '%pg_stat_statements%' and total_exec_time * 1000 / $count >= 0.05
        order by total_exec_time desc"
}

# The slowest plan of each statement, from the server's log.
plans() {
    python3 - "$servers/postgres/log" <<'PYTHON'
import re, sys

log = open(sys.argv[1], errors="replace").read()
slowest = {}
for entry in re.split(r"\n(?=\d{4}-\d\d-\d\d )", log):
    found = re.search(r"duration: ([\d.]+) ms  plan:\n\tQuery Text: (.*?)\n\t(?=\S.*\(cost=)", entry, re.S)
    if not found:
        continue
    took, text = float(found[1]), re.sub(r"\s+", " ", found[2])
    if took > slowest.get(text, (0, ""))[0]:
        slowest[text] = took, entry[found.end():].replace("\n\t", "\n")
for text, (took, plan) in sorted(slowest.items(), key=lambda item: -item[1][0]):
    print(f"-- {took:.1f} ms\n{text}\n{plan}\n")
PYTHON
}

flame_graph() { # TITLE SELECTION..
    local title=$1
    shift
    perf script --input "$out/perf.data" --no-inline "$@" 2>/dev/null |
        "$inferno/inferno-collapse-perf" 2>/dev/null | "$inferno/inferno-flamegraph" --minwidth 1.5 --title "$title"
}

main "$@"
