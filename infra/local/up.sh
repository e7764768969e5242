#!/usr/bin/env bash
# Starts a real Apache Kafka and a real Postgres on free ports of 127.0.0.1, for tests and benchmarks.
#
#   infra/local/up.sh [--brokers 1|3] [--dir DIR] [--bench] [--ways N]
#
#   --brokers N  1 (default), or 3 with replication factor 3 and min.isr 2
#   --dir DIR    where their data goes (default: target/local); each DIR is an instance of its own
#   --bench      sizes for benchmarks: more memory, Java's optimising compiler
#   --ways N     N further listeners (default: 0) of each broker, for clients behind a proxy: DIR/ways has a line
#                "WAY LISTENER ADVERTISED" for each; nothing listens at the advertised address until a proxy does
#
# Writes the addresses to DIR/env (MILLRACE_BROKERS, DATABASE_URL); load them with: set -a; . DIR/env; set +a
# Where DIR runs already nothing changes; a server that is down is started again, with its data and port.
# Needs Java 17 and Postgres, and Maven the first time; as root on Debian or Ubuntu it installs what is missing.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

main() {
    local want_brokers=1 want_bench=no want_ways=0
    while [ $# -gt 0 ]; do
        case $1 in
            --brokers) want_brokers=${2:-}; shift 2 || usage_error "--brokers needs a number" ;;
            --dir) set_dir "${2:-}"; shift 2 ;;
            --bench) want_bench=yes; shift ;;
            --ways) want_ways=${2:-}; shift 2 || usage_error "--ways needs a number" ;;
            -h | --help) help ;;
            *) usage_error "unknown argument: $1" ;;
        esac
    done
    case $want_brokers in 1 | 3) ;; *) usage_error "--brokers is 1 or 3, not '$want_brokers'" ;; esac
    [[ $want_ways =~ ^[0-9]$ ]] || usage_error "--ways is 0 to 9, not '$want_ways'"

    find_java
    find_kafka
    find_postgres
    lock_dir
    if [ -f "$DIR/env" ]; then
        resume
    else
        create
    fi
}

resume() {
    load_settings
    [ "$brokers $bench $ways" = "$want_brokers $want_bench $want_ways" ] ||
        die "$DIR was made with --brokers $brokers, bench: $bench, --ways $ways; run infra/local/down.sh --dir $DIR first"
    local node down=()
    for node in $(nodes); do kafka_alive "$node" || down+=("$node"); done
    if [ ${#down[@]} = 0 ] && postgres_alive; then say "already running in $DIR"; fi
    postgres_start
    kafka_start "${down[@]}"
    report
}

create() {
    if [ -f "$DIR/settings" ]; then
        load_settings
        remove_all # left by a start that was killed
        lock_dir
    fi
    [ -z "$(ls -A "$DIR")" ] || die "$DIR is not empty and not ours"
    brokers=$want_brokers bench=$want_bench ways=$want_ways
    postgres_home=$(postgres_home_new)
    claim_port
    postgres_port=$PORT
    printf '%s=%q\n' brokers "$brokers" bench "$bench" ways "$ways" postgres_home "$postgres_home" postgres_port "$postgres_port" \
        >"$DIR/settings"
    trap 'warn "not started: removing what there is"; wait "${JOBS[@]}" || true; remove_all' EXIT
    trap 'exit 130' INT TERM HUP

    postgres_create &
    JOBS+=($!)
    kafka_create
    # shellcheck disable=SC2046 # one word per node
    kafka_start $(nodes)
    wait "${JOBS[0]}" || exit 1
    write_env
    trap - EXIT
    report
}

write_env() {
    local node addresses=''
    for node in $(nodes); do addresses+=${addresses:+,}$(kafka_address "$node"); done
    printf '%s\n' "MILLRACE_BROKERS=$addresses" \
        "DATABASE_URL=postgres://postgres@127.0.0.1:$postgres_port/millrace" >"$DIR/env.new"
    mv "$DIR/env.new" "$DIR/env"
}

report() {
    local node
    for node in $(nodes); do say "kafka $node   $(kafka_address "$node")"; done
    say "postgres  $(sed -n 's/^DATABASE_URL=//p' "$DIR/env")"
    say "env       $DIR/env"
}

main "$@"
