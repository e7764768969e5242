#!/usr/bin/env bash
# Takes Kafka nodes of DIR down and up again, for fault tests. Returns when they are really down, or serve.
#
#   infra/local/kafka.sh stop|start|kill [--node N] [--dir DIR]
#
#   stop       SIGTERM (and kill -9 when that takes too long: always so for the last of three at once)
#   start      the same port, the same data
#   kill       SIGKILL
#   --node N   only this one of the nodes 1 to 3 (default: all of them)
#   --dir DIR  the instance (default: target/local)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

action='' only=''
while [ $# -gt 0 ]; do
    case $1 in
        stop | start | kill) [ -z "$action" ] || usage_error "one action at a time"; action=$1; shift ;;
        --node) only=${2:-}; shift 2 || usage_error "--node needs a number" ;;
        --dir) set_dir "${2:-}"; shift 2 ;;
        -h | --help) help ;;
        *) usage_error "unknown argument: $1" ;;
    esac
done
[ -n "$action" ] || usage_error "say stop, start or kill"
load_settings
lock_part kafka-1
mapfile -t chosen < <(nodes)
if [ -n "$only" ]; then
    [[ $only =~ ^[1-3]$ && $only -le $brokers ]] || usage_error "there is no node '$only': $DIR has $brokers"
    chosen=("$only")
fi

case $action in
    stop)
        timeout_s=$STOP_TIMEOUT_S
        [ ${#chosen[@]} = 1 ] || timeout_s=$QUORUM_GONE_S
        kafka_signal TERM "$timeout_s" "${chosen[@]}"
        ;;
    start) kafka_start "${chosen[@]}" ;;
    kill) kafka_signal KILL 10 "${chosen[@]}" ;;
esac
