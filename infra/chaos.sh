#!/usr/bin/env bash
# Makes real faults on a real Kafka, a real Postgres and replicas of the ledger under load, for as long as you like, and
# then judges from what Kafka acknowledged: nothing lost, nothing twice, nothing out of order. Builds millrace, starts
# the servers, and stops and removes them at the end whatever happens.
#
#   infra/chaos.sh [--brokers 1|3] [--minutes M] [--seed N] [--replicas 1-4] [--rate TX/S] [--faults-per-minute F]
#                  [--session-timeout-ms MS] [--results FILE] [--kinds KIND,..] [--recovery TIMES] [--debug]
#
#   --brokers N            1 (default), or 3 with replication 3 and min.isr 2
#   --minutes M            how long faults are made (default: 10)
#   --seed N               which faults, when and to whom (default: 1); the moments are real, so no two runs are the same
#   --replicas N           replicas at the start (default: 3), a lane each; faults add and remove some, between 1 and 4
#   --rate TX/S            transactions per second (default: 5000)
#   --faults-per-minute F  as many, if recovery leaves time for them (default: 6)
#   --session-timeout-ms   of the replicas (default: 6000, the least that Kafka's default limits allow)
#   --kinds KIND,..        only these kinds of faults: kill-replica, freeze-short, freeze-long, freeze-in-copy, drain, remove,
#                          add, terminate-backend, kill-backend, kill-postgres, kill-broker, postgres-slow,
#                          postgres-stalled, postgres-cut, kafka-slow, kafka-stalled, kafka-cut
#   --results FILE         every fault, figures and conditions, one JSON object a line
#                          (default: benches/results/chaos.jsonl)
#   --recovery TIMES       only the faults with a target, so often each: a killed, a leaving and a frozen owner
#   --debug                the debug build: quicker to build, slower to run
#
# Examples:
#   infra/chaos.sh                                     ten minutes
#   infra/chaos.sh --minutes 60 --brokers 3 --seed 7   an hour, with some 300 faults, on three brokers
#   infra/chaos.sh --recovery 10                       how soon partitions are processed again
#   MILLRACE_KAFKA_RECONNECT_BACKOFF_MAX_MS=1000 infra/chaos.sh      replicas with another property of librdkafka
#
# Exit status: 0 when everything holds. Logs of replicas stay in target/chaos.logs until the next run; KEEP=yes leaves
# the servers and their data too (infra/local/down.sh --dir target/chaos stops them).

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/local/lib.sh"

WORK=$REPO/target/chaos
RESULTS=$REPO/benches/results/chaos.jsonl
JOB=''

main() {
    local brokers=1 profile=release flags=() build=(--release)
    while [ $# -gt 0 ]; do
        case $1 in
            --brokers) brokers=${2:-}; shift 2 || usage_error "--brokers needs a number" ;;
            --results) RESULTS=${2:-}; shift 2 || usage_error "--results needs a file" ;;
            --debug) profile=debug build=(); shift ;;
            --minutes | --seed | --replicas | --rate | --faults-per-minute | --session-timeout-ms | --kinds | --recovery)
                [ $# -ge 2 ] || usage_error "$1 needs a value"
                flags+=("$1" "$2")
                shift 2
                ;;
            -h | --help) help ;;
            *) usage_error "unknown argument: $1" ;;
        esac
    done
    cd "$REPO"
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup (https://rustup.rs)"
    [ ! -f "$WORK/settings" ] || die "servers are in $WORK already: stop them with infra/local/down.sh --dir $WORK"
    rm -rf "$WORK.logs"
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    SQLX_OFFLINE=true job cargo build "${build[@]}" --locked -p millrace -p millrace-chaos
    job "$HERE/up.sh" --dir "$WORK" --brokers "$brokers" --ways 4
    local target=${CARGO_TARGET_DIR:-target}/$profile
    job "$target/chaos" --servers "$WORK" --millrace "$target/millrace" --results "$RESULTS" "${flags[@]}"
}

# As a job of its own, so that a signal to this script ends it at once, with all it started.
job() {
    local code=0
    set -m
    "$@" </dev/null &
    JOB=$!
    set +m
    wait "$JOB" || code=$?
    JOB=''
    return "$code"
}

cleanup() {
    trap '' INT TERM HUP
    # Frozen replicas hear nothing but KILL.
    [ -z "$JOB" ] || { kill -KILL -- "-$JOB" 2>/dev/null || true; wait "$JOB" || true; }
    [ "${KEEP:-no}" = no ] || return 0
    "$HERE/down.sh" --dir "$WORK" || true
    rm -rf "$WORK"
}

main "$@"
